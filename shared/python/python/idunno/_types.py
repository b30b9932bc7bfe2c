"""The documents of the cluster, as the command line prints them. Later releases may add fields to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypedDict

JobState = Literal["added", "waiting", "running", "stopped", "paused", "done", "cancelled"]


class AnyJob(Protocol):
    """A job of either client."""

    @property
    def id(self) -> str:
        """Its number, such as `job-7`."""
        ...


class RunOptions(TypedDict, total=False):
    """How a job runs: the arguments of `run` after its data. None is as if the argument were left out."""

    name: str | None
    batch_size: int | str | None
    params: Mapping[str, Any] | None
    weight: int | None
    limit: int | None
    sample: int | None
    only_new: bool | None
    max_failed: int | str | None
    after: AnyJob | str | None
    on_end: str | None
    input_column: str | None
    label_column: str | None
    id_column: str | None
    keep: str | Sequence[str] | None
    dataset: str | None


class Row(TypedDict, total=False):
    """A row of results: an answered query has `output`, one that failed permanently has `error`."""

    query: int
    name: str
    id: Any
    label: Any
    model: str
    version: str
    output: Any
    error: str
    worker: str
    attempt: int
    fields: dict[str, Any]


class ProcessingTimes(TypedDict):
    """Milliseconds of inference per query, by batch."""

    mean: float
    std_dev: float
    median: float
    p90: float
    p95: float
    p99: float


class Tokens(TypedDict):
    """Tokens that a job's answers say they took, each query's once."""

    prompt: int
    completion: int
    total: int
    rate_per_s: float


class Webhook(TypedDict):
    """Who is told when a job ends."""

    url: str
    due: bool
    failure: str | None


class JobStats(TypedDict):
    """Figures of a job. Times end in their unit; a value that is not known is None."""

    job: str
    name: str | None
    owner: str | None
    model: str
    model_version: str | None
    dataset: str
    records: dict[str, Any] | None
    parameters: dict[str, str]
    batch_size: int | Literal["auto"]
    weight: int
    state: JobState
    reason: str | None
    submitted: int
    done: int
    dead_letters: int
    dead_letters_dropped: int
    pending: int
    leased: int
    last_batch_queries: int
    duplicates_dropped: int
    labelled: int
    correct: int
    accuracy_top1: float | None
    rate_qps: float
    rate_10s_qps: float
    eta_s: float | None
    local_share: float
    processing_ms: ProcessingTimes
    created_ms: int
    started_ms: int | None
    finished_ms: int | None
    running_s: float
    results_file: str | None
    tokens: Tokens | None
    webhook: Webhook | None
    reused: int
    reused_from: str | None


class Explanation(TypedDict):
    """Why a job runs as it does, or does not run."""

    job: str
    state: JobState
    summary: str
    details: list[str]
    next: str | None


class DeadLetter(TypedDict):
    """A query that failed permanently."""

    query: int
    name: str
    error: str
    member: str
    attempts: int
    dropped: bool
    id: Any
    label: Any


class File(TypedDict):
    """A file of the store, in its newest version."""

    name: str
    version: int
    versions: int
    size_bytes: int
    digest: str
    created_ms: int
    holders: list[str]


class StoredFile(TypedDict):
    """A version that was put. An empty file has no copies."""

    name: str
    version: int
    size_bytes: int
    copies: int | None
    copies_wanted: int | None


class Device(TypedDict):
    """A GPU of a member's machine; `reason` says why models cannot use it."""

    index: int
    uuid: str
    name: str
    memory_mib: int
    memory_used_mib: int
    reason: str | None


class Member(TypedDict):
    """A member of the cluster."""

    name: str
    address: str
    node_id: str
    state: Literal["up", "suspect", "dead", "left"]
    role: Literal["coordinator", "voter", "learner", "spare"]
    since_ms: int
    generation: int
    incarnation: int
    disk_hung: bool
    udp_blocked: bool
    devices: list[Device]


class Event(TypedDict):
    """Something that happened in the cluster; `at_ms` counts from the epoch."""

    at_ms: int
    subject: Literal["election", "member", "worker", "job", "sharing", "model", "store"]
    text: str


class ModelOnMember(TypedDict):
    """A model's state on a member."""

    member: str
    state: Literal["training", "loading", "ready", "failed"]
    reason: str | None
    runners: list[dict[str, Any]] | None


class Model(TypedDict):
    """A model, and where it is ready."""

    model: str
    version: str | None
    training: bool
    progress: dict[str, Any] | None
    metrics: dict[str, Any]
    failure: str | None
    package: dict[str, Any] | None
    members: list[ModelOnMember]


class AddedModel(TypedDict):
    """A model that was added; `is_new` says whether its files differ from those of its newest version."""

    model: str
    version: str
    is_new: bool
    runtime: str
    files: int
    size_bytes: int
