"""What Slurm's commands say when they fail, in words of real clusters, and what is made of it."""

from __future__ import annotations

import pytest

from snakemake_executor_plugin_submitit.refusals import LIMIT, PASSING, REFUSED, UNCLEAR, Kind, kind_of
from snakemake_executor_plugin_submitit.slurm import (
    SlurmError,
    SlurmLimitError,
    SlurmUnclearError,
    SlurmUnreachableError,
    failure,
)
from snakemake_executor_plugin_submitit.submission import read_answer

LAST = "sbatch: error: Batch job submission failed: "
POLICY = LAST + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: If munged is up, restart with --num-threads=10\n"
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory '
        "(Did you start munged?)\n"
        "sbatch: error: slurm_send_node_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error\n"
        + LAST + "Protocol authentication error",
        "sbatch: error: Munge decode failed: Invalid credential\n" + LAST + "Invalid authentication credential",
        "sbatch: error: Munge encode failed: Unable to access munge.socket.2: Permission denied\n"
        + LAST + "Protocol authentication error",
        LAST + "Connection timed out",
        LAST + "Connection refused",
        LAST + "Connection timed out reading",
        LAST + "I/O error writing script/environment to file",
        LAST + "Message receive failure",
        LAST + "Message send failure",
        LAST + "Communication connection failure",
        LAST + "Unexpected message received",
        LAST + "Zero Bytes were transmitted or received",
        LAST + "Socket timed out on send/recv operation",
        LAST + "Unable to contact slurm controller (connect failure)",
        LAST + "Slurm backup controller in standby mode",
        LAST + "Controller is in standby mode, try a different controller",
        LAST + "Transport endpoint is not connected",
        LAST + "Resource temporarily unavailable",
        LAST + "No space left on device",
        LAST + "Rate limit exceeded, please retry momentarily",
        LAST + "Requested partition configuration not available now",
        LAST + "System submissions disabled",
        LAST + "Error generating job credential",
        LAST + "Authentication credential expired",
        LAST + "Network dropped connection on reset",
        LAST + "Software caused connection abort",
        LAST + "No buffer space available",
        LAST + "Cannot assign requested address",
        "sbatch: error: slurm_receive_msg: Zero Bytes were transmitted or received\n" + LAST + "Unspecified error",
        "sbatch: error: Munge decode failed: Expired credential\n" + LAST + "Unspecified error",
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Host name lookup failure\n"
        "sbatch: error: fetch_config: DNS SRV lookup failed\n"
        "sbatch: error: _establish_config_source: failed to fetch config\n"
        "sbatch: fatal: Could not establish a configuration source",
        "sbatch: error: s_p_parse_file: unable to status file /etc/slurm/slurm.conf: Stale file handle, retrying",
        "sbatch: error: get_addr_info: getaddrinfo() failed: Temporary failure in name resolution\n"
        + LAST + "Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Protocol authentication error",
        "scancel: error: Kill job error on job id 12: Socket timed out on send/recv operation",
        "sacct: error: slurm_persist_conn_open_without_init: failed to open persistent connection to host:db:6819: "
        "Connection refused\nsacct: error: Sending PersistInit msg: Connection refused\n"
        "sacct: error: Problem talking to the database: Connection refused",
    ],
)  # fmt: skip
def test_what_passes_by_itself(text):
    assert kind_of(text) == Kind(PASSING)
    assert isinstance(failure("sbatch", text), SlurmUnreachableError)


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: invalid partition specified: gpus\n" + LAST + "Invalid partition name specified",
        LAST + "Required partition not available (inactive or drain)",
        LAST + "Invalid account or account/partition combination specified",
        LAST + "Invalid qos specification",
        LAST + "Requested time limit is invalid (missing or exceeds some limit)",
        LAST + "Invalid feature specification",
        "sbatch: error: Invalid generic resource (gres) specification",
        "sbatch: error: Memory specification can not be satisfied\n"
        + LAST + "Requested node configuration is not available",
        LAST + "Requested topology configuration is not available",
        LAST + "Job dependency problem",
        LAST + "Access/permission denied",
        LAST + "User's group not permitted to use this partition",
        LAST + "Requested reservation is invalid",
        LAST + "Access denied to requested reservation",
        LAST + "Node count specification invalid",
        LAST + "More processors requested than permitted",
        LAST + "Memory required by task is not available",
        LAST + "Pathname of a file, directory or other parameter too long",
        LAST + "Invalid license specification",
        LAST + "Insufficient GRES available in allocation",
        LAST + "Time limit specification required, but not provided",
        "sbatch: unrecognized option '--foo'\nTry \"sbatch --help\" for more information",
        "sbatch: error: Invalid --time specification: 1x",
        "sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.",
        "sbatch: error: This does not look like a batch script.  The first\n"
        "sbatch: error: line must start with #! followed by the path to an interpreter.",
        "sbatch: error: Unable to open file a.sh",
        "sbatch: error: lua: jobs here name their account, try again with -A\n" + LAST + "Unspecified error",
        # Plugins of sites, in their own words.
        "sbatch: error: CPU 超限: 每 GPU 对应 CPU 不能超过 12 核\n" + LAST + "Unspecified error",
        "sbatch: error: The cpu demand is too low. Please go to the small queue and try again.\n"
        + LAST + "Unspecified error",
        "sbatch: error: Jobs here name a project.\nsbatch: error: cli_filter plugin terminated with error",
        "sbatch: option '--verbose' doesn't allow an argument\nTry \"sbatch --help\" for more information",
        LAST + "Container runtime not configured or invalid",
        "sbatch: error: QOSMaxWallDurationPerJobLimit\n" + POLICY,
        "sbatch: error: AssocMaxCpuPerJobLimit\n" + POLICY,
        "sbatch: error: MaxMemoryPerAccount\n" + POLICY,
        "scancel: error: Kill job error on job id 12: Access/permission denied",
    ],
)  # fmt: skip
def test_what_is_refused_for_good(text):
    assert kind_of(text).word == REFUSED
    assert type(failure("sbatch", text)) is SlurmError


@pytest.mark.parametrize(
    ("text", "limit", "own"),
    [
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + POLICY, "QOSMaxSubmitJobPerUserLimit", True),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + POLICY, "AssocMaxSubmitJobLimit", True),
        ("sbatch: error: QOSGrpSubmitJobsLimit\n" + POLICY, "QOSGrpSubmitJobsLimit", False),
        ("sbatch: error: AssocGrpSubmitJobsLimit\n" + POLICY, "AssocGrpSubmitJobsLimit", False),
        ("sbatch: error: MaxSubmitJobsPerAccount\n" + POLICY, "MaxSubmitJobsPerAccount", False),
        (POLICY, "", True),  # before 22.05, and with some plugins
        ("sbatch: error: lua: Job submission limit reached\n" + LAST + "Unspecified error", "", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.", "MaxJobCount", False),
        ("sbatch: error: Slurm job queue full, sleeping and retrying.", "MaxJobCount", False),
        (LAST + "MaxJobCount limit reached", "MaxJobCount", False),
        (LAST + "Unable to create job record, try again", "MaxJobCount", False),
    ],
)
def test_limits_on_jobs_in_the_queue(text, limit, own):
    assert kind_of(text) == Kind(LIMIT, limit, own)
    error = failure("sbatch", text)
    assert isinstance(error, SlurmLimitError) and (error.limit, error.own) == (limit, own)


@pytest.mark.parametrize(
    "text", [LAST + "Unspecified error", LAST + "Invalid user id", "exit code 3", "sbatch: error: no more tea"]
)
def test_an_unknown_error_is_neither(text):
    assert kind_of(text) == Kind(UNCLEAR)
    assert isinstance(failure("sbatch", text), SlurmUnclearError)


def test_the_message_is_one_line_without_the_command_s_own_prefixes():
    text = "sbatch: error: invalid partition specified: gpus\n" + LAST + "Invalid partition name specified\n"
    assert str(failure("sbatch", text)) == (
        "sbatch: invalid partition specified: gpus; Batch job submission failed: Invalid partition name specified"
    )


def test_a_site_s_words_are_told_in_full_but_not_without_end():
    words = [f"word {number}" for number in range(20)]
    last = "Batch job submission failed: Unspecified error"
    some = "".join(f"sbatch: error:   {word}\nsbatch: error: \n" for word in words[:5])
    assert str(failure("sbatch", some + LAST + "Unspecified error")) == f"sbatch: {'; '.join([*words[:5], last])}"
    many = "".join(f"sbatch: error: {word}\n" for word in words)
    shown = f"sbatch: {'; '.join([*words[:5], '...', words[-1], last])}"
    assert str(failure("sbatch", many + LAST + "Unspecified error")) == shown


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        ("17\n", "", ("17", [])),
        ("17;alps\n", "", ("17", [])),
        ("Welcome, job 42 of today!\n17\n", "", ("17", ["Welcome, job 42 of today!"])),
        ("17\nYour account has used 12 hours.\n", "", ("17", ["Your account has used 12 hours."])),
        ("17\n", "sbatch: lua: routed to partition long\n", ("17", ["sbatch: lua: routed to partition long"])),
        ("job 42 says hello\nSubmitted batch job 17\n", "", ("17", ["job 42 says hello"])),
        ("Submitted batch job 17 on cluster alps\n", "", ("17", [])),
        ("job 42 says hello\n", "", (None, [])),
        ("", "", (None, [])),
    ],
)
def test_the_id_is_the_answer_s_and_no_other_number(stdout, stderr, expected):
    assert read_answer(stdout, stderr) == expected
