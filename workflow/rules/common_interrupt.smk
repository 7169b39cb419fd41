# Ctrl-C ends in one sentence. A terminal sends it to Snakemake and to all jobs on this machine; Snakemake would then
# call every one of them a failure (a red RuleException for each, and "At least one job did not complete
# successfully"). Jobs that failed for a reason of their own are shown as ever, `--verbose` shows all, and so do the
# log file and logger plugins.
import logging
import re
import threading

from snakemake.logging import get_event
from snakemake_interface_logger_plugins.common import LogEvent

BY_REQUEST = re.compile(
    r"returned non-zero exit status (75|130|143)\.|died with <Signals\.SIG(INT|TERM): \d+>"  # 75: training has saved
)


class Interrupts(logging.Filter):
    """Keeps what an interrupt alone has caused off the terminal."""

    def __init__(self):
        super().__init__()
        self.interrupted = threading.Event()
        self.failed = False  # a job, for another reason
        self.thread = threading.local()  # a job's exception and its other lines come from one thread

    def filter(self, record):
        text = record.getMessage()
        if text.startswith("Terminating processes on user request"):
            self.interrupted.set()
            return self._say("interrupted: jobs that run save their work and end; this may take a moment")
        if record.levelno < logging.ERROR:
            return True
        if get_event(record) in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
            return not getattr(self.thread, "interrupted", False)
        if "At least one job did not complete successfully" in text:
            if self.interrupted.is_set() and not self.failed:
                return self._say("interrupted; the same command goes on")
            return True
        # A job may end before Snakemake itself has noticed.
        self.thread.interrupted = bool(BY_REQUEST.search(text)) and self.interrupted.wait(2)
        self.failed |= not self.thread.interrupted
        return not self.thread.interrupted

    def _say(self, sentence):
        print(sentence, file=sys.stderr, flush=True)
        return False


if not workflow.output_settings.verbose and not workflow.remote_exec:
    for handler in logging.getLogger("snakemake.logging").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(Interrupts())
