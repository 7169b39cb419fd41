"""Models on clusters without internet: what a configuration needs, fetching it elsewhere, finding it, staging it."""
