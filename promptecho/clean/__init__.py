"""What a finished experiment no longer needs, found (`find.py`) and deleted (`delete.py`) by the site's policy."""
