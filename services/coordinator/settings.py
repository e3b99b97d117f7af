"""Settings of the coordinator's two kinds of process: the coordinator itself, and its workers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from urllib.parse import urlsplit

from dnd.clients import JUDGE, SERVICE_NAMES
from dnd.errors import BadSetting, UnknownName, suggest
from dnd.jobs import STAGES
from dnd.settings import ServerSettings


@dataclass(frozen=True)
class QueueSettings(ServerSettings):
    """What coordinator and workers must agree on.

    Attributes:
        database: SQLAlchemy URL of the record, "sqlite:////data/coordinator.db" or PostgreSQL.
        redis: URL of the broker, "redis://127.0.0.1:6379/0".
        activations: Target of the activations service: "host:port", "dns:host:port", "file:/path".
        captioner: Target of the captioner.
        summarizer: Target of the summarizer.
        synthesizer: Target of the synthesizer.
        scorer: Target of the scorer.
        lease_s: How long claimed work stays with a worker that has gone silent, seconds.
        renew_s: How often a working worker renews its leases, seconds.
        heartbeat_s: How often a worker says that it is there, seconds.
        rpc_deadline_s: Time for one call of a stage service, seconds.
        max_attempts: Failures of an item itself before it has failed for good.
        backoff_s: Wait before a failed item is tried again the first time, seconds; then doubled.
        pause_s: Wait before a paused stage is probed the first time, seconds; then doubled.
        down_s: A service that has not answered for this long pauses its stage, seconds.
        share_drawings: Let tenants share drawings of the same prompt, and results of other stages.
        reuse_results: Take results of a stage that other jobs have computed from the same inputs.
    """

    database: str = ""
    redis: str = ""
    activations: str = ""
    captioner: str = ""
    summarizer: str = ""
    synthesizer: str = ""
    scorer: str = ""
    lease_s: float = 60.0
    renew_s: float = 15.0
    heartbeat_s: float = 5.0
    rpc_deadline_s: float = 90.0
    max_attempts: int = 3
    backoff_s: float = 0.5
    pause_s: float = 5.0
    down_s: float = 60.0
    share_drawings: bool = False
    reuse_results: bool = True

    @property
    def stage_targets(self) -> dict[str, str]:
        """Targets of the five stage services, by name."""
        return {name: getattr(self, name) for name in SERVICE_NAMES}

    def validate(self) -> None:
        super().validate()
        if "://" not in self.database:
            raise BadSetting(
                f"DND_DATABASE = {self.database!r}: expected an SQLAlchemy URL, "
                "for example sqlite:////data/coordinator.db (four slashes for an absolute path)."
            )
        if urlsplit(self.redis).scheme not in ("redis", "rediss"):
            raise BadSetting(
                f"DND_REDIS = {self.redis!r}: expected a URL like redis://127.0.0.1:6379/0."
            )
        for name, target in self.stage_targets.items():
            if not target:
                raise BadSetting(
                    f"DND_{name.upper()} is not set: name the {name} service, 'host:port'."
                )
        _expect_positive(self)
        if self.renew_s * 2 > self.lease_s:
            raise BadSetting(
                f"DND_RENEW_S = {self.renew_s}: expected at most half of DND_LEASE_S "
                f"({self.lease_s}), so that one late renewal loses nothing."
            )
        if self.rpc_deadline_s > 90:
            raise BadSetting(
                f"DND_RPC_DEADLINE_S = {self.rpc_deadline_s}: expected at most 90, below the time "
                "after which servers end old connections."
            )


@dataclass(frozen=True)
class CoordinatorSettings(QueueSettings):
    """The coordinator process: the API, and the dispatcher of whichever process leads.

    Attributes:
        sweep_s: How often lost and expired work is looked for, seconds.
        poll_s: How often the dispatcher looks for work without being told, seconds.
        leader_s: How long a silent dispatcher stays leader, seconds.
        target_task_s: Predicted time that a task is filled up to, seconds.
        cap_task_s: Predicted time that no task of several items exceeds, seconds.
        max_task_items: Items of one task at most.
        min_task_items: Items of one task at least while enough are waiting, so that model servers
            can fill their batches.
        chunk_units: Units whose rows are written at once.
        open_units: Units of one job that are under way at the same time, at most.
        freeze_s: Time for a service to say which weights it holds when a job is made, seconds.
        budgets: YAML file with prices of language models, limits and quotas of tenants
            (`budgets.py`); empty for none.
        judge: Target of the judge, a scorer whose model selection never uses; empty for none, and
            then nothing can be evaluated.
        scale_to_zero: Stage services may have no replica while nothing waits: a job is then frozen
            to the weights that the newest job was frozen to.
        keep_drawings: Which drawings of candidates `dnd gc` keeps when their jobs have ended:
            "all", or those of "labels"; the others are drawn again when a job asks for them.
        web_port: TCP port of REST and the explorer; 0 takes a free one.
        auth: "tokens": every call carries a token; "off": whoever reaches the address may do
            everything, on loopback only.
        admin_token_file: A file with the secret of a first token, of role admin; empty for none.
        calls_per_s: Calls of one token in a second, twice as many at once; 0 for any number.
    """

    sweep_s: float = 2.0
    poll_s: float = 0.5
    leader_s: float = 10.0
    target_task_s: float = 20.0
    cap_task_s: float = 60.0
    max_task_items: int = 512
    min_task_items: int = 4
    chunk_units: int = 2000
    open_units: int = 16_000
    freeze_s: float = 10.0
    budgets: str = ""
    judge: str = ""
    scale_to_zero: bool = False
    keep_drawings: str = "all"
    web_port: int = 0
    auth: str = "off"
    admin_token_file: str = ""
    calls_per_s: float = 200.0

    @property
    def is_guarded(self) -> bool:
        """Whether callers must identify themselves."""
        return super().is_guarded or self.auth == "tokens"

    @property
    def targets(self) -> dict[str, str]:
        """Targets of the stage services and of the judge, by name; "" for no judge."""
        return {**self.stage_targets, JUDGE: self.judge}

    def validate(self) -> None:
        super().validate()
        if self.auth not in ("off", "tokens"):
            raise BadSetting(f"DND_AUTH = {self.auth!r}: expected off or tokens.")
        if self.keep_drawings not in ("all", "labels"):
            raise BadSetting(f"DND_KEEP_DRAWINGS = {self.keep_drawings!r}: expected all or labels.")
        if self.calls_per_s < 0:
            raise BadSetting(f"DND_CALLS_PER_S = {self.calls_per_s}: expected 0 or more.")
        if not 0 <= self.web_port <= 65535:
            raise BadSetting(f"DND_WEB_PORT = {self.web_port}: expected 0 to 65535.")
        if self.cap_task_s < self.target_task_s:
            raise BadSetting(
                f"DND_CAP_TASK_S = {self.cap_task_s}: expected at least DND_TARGET_TASK_S "
                f"({self.target_task_s})."
            )
        if self.min_task_items > self.max_task_items:
            raise BadSetting(
                f"DND_MIN_TASK_ITEMS = {self.min_task_items}: expected at most "
                f"DND_MAX_TASK_ITEMS ({self.max_task_items})."
            )


@dataclass(frozen=True)
class WorkerSettings(QueueSettings):
    """One worker process.

    Attributes:
        stage: The stage it works for: index, exemplars, caption, summarize, synthesize, score or
            calibrate; several with commas, or "all", where one process is enough.
        threads: Tasks at the same time.
        metrics_port: TCP port of Prometheus metrics over HTTP, open once the worker is ready; 0 for
            no metrics.
    """

    stage: str = ""
    threads: int = 2
    metrics_port: int = 0

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that this process works for."""
        if self.stage == "all":
            return STAGES
        return tuple(dict.fromkeys(name.strip() for name in self.stage.split(",")))

    def validate(self) -> None:
        super().validate()
        if not self.stage:
            raise BadSetting(f"DND_STAGE is not set: expected one of {', '.join(STAGES)}, or all.")
        for name in self.stages:
            if name not in STAGES:
                raise UnknownName(f"DND_STAGE: {suggest(name, list(STAGES), what='stage')}")


def _expect_positive(settings: QueueSettings) -> None:
    """Every number of these settings must be above 0; ports and drain_s are checked elsewhere."""
    base = {item.name for item in fields(ServerSettings)} | {"web_port", "calls_per_s"}
    for item in fields(settings):
        value = getattr(settings, item.name)
        if item.name in base or isinstance(value, (str, bool)):
            continue
        if value <= 0:
            raise BadSetting(f"DND_{item.name.upper()} = {value}: expected a number above 0.")
