"""Loading a checkpoint into live tensors, whatever the layouts on both sides.

All or nothing: keys, shapes, dtypes and coverage are compared first, then every byte that is needed is read and
verified once without being kept, and only then are the bytes read again (and verified again) into the live tensors. So
memory is bounded, and a damaged checkpoint leaves the state as it was. ``verify_first=False`` skips the first reading,
for a state that is worthless anyway. What fails in the second reading raises an error that calls the state poisoned.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainctl.checkpoint.attempts import storage_errors
from trainctl.checkpoint.blocks import BlockRead, BlockReader
from trainctl.checkpoint.layout.combine import Term, WeightedSum
from trainctl.checkpoint.layout.copy_plan import copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.region import Flat, Shape, overlaps
from trainctl.checkpoint.load_watch import LoadWatch
from trainctl.checkpoint.manifest.reading import (
    check_files,
    files_layout,
    read_contents,
    read_parts,
    read_root,
)
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.manifest.values import decode_value
from trainctl.checkpoint.matching import match
from trainctl.checkpoint.rereads import Rereads
from trainctl.checkpoint.state import LocalState, StateTensor
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.checkpoint.tensors import byte_view, dtype_of, run_view
from trainctl.core.errors import DamagedCheckpointError, InternalError, StorageAwayError
from trainctl.core.records.generation import CheckpointRef

_Terms = Mapping[StateKey, tuple[Term, ...]]
_HERE = "rank:this"
_SHOWN_EVERY_S = 0.5
_POISONED = "the state of this process is poisoned: some of its tensors hold values of step {}"


def load(
    ref: CheckpointRef,
    state: LocalState,
    *,
    everything: Iterable[StateKey] | None = None,
    kinds: Collection[str] | None = None,
    cast: bool = False,
    verify_first: bool = True,
    all_here: bool = True,
    alive: Callable[[], None] = lambda: None,
    watch: LoadWatch | None = None,
    plan: LoadPlan | None = None,
) -> Mapping[str, Any]:
    """Fills the live tensors of ``state`` from a checkpoint and returns the objects saved with it.

    Args:
        ref: which one; ``catalog.newest`` or ``catalog.resolve`` make it.
        state: what this rank wants; versions in its keys do not matter, the instance only where several were saved.
        everything: keys of the whole job, where this rank holds only some; a saved tensor outside it is an error.
        kinds: only saved tensors of these kinds are looked at; None: of all.
        cast: whether floating-point tensors may be stored in another floating-point dtype.
        verify_first: whether the live state has to survive a damaged checkpoint.
        all_here: whether every file of the checkpoint has to be there, or only those that are read for ``state``.
        alive: called for every block that is read: loading may take long, and that shows that it goes on.
        watch: told how far it is, and what took how long.
        plan: what ``plan_load`` gave for this checkpoint and this state; None: it is planned here.

    Raises:
        UnfitCheckpointError: the checkpoint does not fit; all differences are listed.
        DamagedCheckpointError: it is incomplete or corrupt; says where.
        StorageRefusedError, StorageAwayError: it cannot be read.
        CheckpointError: it was written by a version that this one cannot read.
    """
    names = {(key.fqn, key.kind) for key in (state.shapes() if everything is None else everything)}
    watch = watch or LoadWatch()
    with storage_errors(f"loading {ref.uri}"), _damage_of(ref), _shown(ref, alive):
        return _load(
            ref,
            state,
            names,
            kinds=kinds,
            cast=cast,
            verify_first=verify_first,
            all_here=all_here,
            alive=alive,
            watch=watch,
            plan=plan,
        )


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a load of one checkpoint into one state reads, and by whom."""

    root: RootManifest
    reader: BlockReader
    reads: Sequence[BlockRead]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the data files, sorted."""
        return tuple(sorted({read.path for read in self.reads}))

    @property
    def data_bytes(self) -> int:
        """Tensor bytes that are wanted."""
        return sum(read.wanted_bytes for read in self.reads)

    @property
    def block_bytes(self) -> int:
        """Bytes of all blocks that they are in."""
        return sum({(read.path, read.begin): read.size for read in self.reads}.values())


def plan_load(ref: CheckpointRef, state: LocalState, *, watch: LoadWatch | None = None) -> LoadPlan:
    """What ``load`` would read; only the manifests have to be there. ``watch`` is that of the load.

    Raises:
        UnfitCheckpointError, DamagedCheckpointError, StorageRefusedError, StorageAwayError: as ``load``.
    """
    with storage_errors(f"loading {ref.uri}"), _damage_of(ref):
        names = {(key.fqn, key.kind) for key in state.shapes()}
        storage = open_storage(ref.uri)
        rereads = (watch or LoadWatch()).rereads
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256, rereads=rereads)
        return _planned(storage, root, state, names, kinds=None, cast=False, rereads=rereads)


@contextlib.contextmanager
def _shown(ref: CheckpointRef, alive: Callable[[], None]) -> Iterator[None]:
    """Shows that it goes on also while a storage is asked again and again, if that has an end."""
    if not open_storage(ref.uri).gives_up:
        yield
        return
    over = threading.Event()

    def show() -> None:
        while not over.wait(_SHOWN_EVERY_S):
            alive()

    thread = threading.Thread(target=show, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _damage_of(ref: CheckpointRef) -> Iterator[None]:
    """Tells a damaged checkpoint from a storage that is not there at all, such as a folder that is not mounted."""
    try:
        yield
    except (DamagedCheckpointError, FileNotFoundError) as error:
        root = ref.uri.rsplit("/", 2)[0]
        if not open_storage(root).list(""):
            raise StorageAwayError(
                f"{root} is empty or not there, but the checkpoint of step {ref.step} was saved in it",
                hint="see that the storage is mounted, or that the bucket is the right one",
            ) from error
        hint = getattr(error, "hint", "") or "resume from an older checkpoint, or restore the file from a copy"
        raise DamagedCheckpointError(str(error), hint=hint, uri=ref.uri) from error


def _load(
    ref: CheckpointRef,
    state: LocalState,
    everything: set[tuple[str, str]],
    *,
    kinds: Collection[str] | None,
    cast: bool,
    verify_first: bool,
    all_here: bool,
    alive: Callable[[], None],
    watch: LoadWatch,
    plan: LoadPlan | None,
) -> Mapping[str, Any]:
    storage = open_storage(ref.uri)
    rereads = watch.rereads
    if plan is not None:
        root = plan.root
    else:
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256, rereads=rereads)
    if all_here:
        check_files(storage, root)
    planned = plan or _planned(storage, root, state, everything, kinds=kinds, cast=cast, rereads=rereads)
    reader, reads = planned.reader, planned.reads
    reader.verify_headers({read.path for read in reads})
    watch.planned(data_bytes=planned.data_bytes, total_bytes=planned.block_bytes * (2 if verify_first else 1))
    if verify_first:
        reader.read_at_once(reads, _nowhere, _let_go, alive, watch=watch.reading, moved=watch.moved)
    try:
        _fill(reader, reads, state, alive, watch)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(
            f"{error}; {_POISONED.format(root.step)}",
            hint="restore the checkpoint's files from a copy, or name another one",
        ) from error
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{error}; {_POISONED.format(root.step)}") from error
    objects: Mapping[str, Any] = decode_value(root.objects)
    return objects


def _planned(
    storage: Storage,
    root: RootManifest,
    state: LocalState,
    everything: set[tuple[str, str]],
    *,
    kinds: Collection[str] | None,
    cast: bool,
    rereads: Rereads,
) -> LoadPlan:
    wanted = state.layout(_HERE)

    def sources(shapes: Mapping[StateKey, Shape]) -> _Terms:
        return match(
            {key: shape for key, shape in shapes.items() if kinds is None or key.kind in kinds},
            wanted.shapes,
            saved_aliases=root.aliases,
            wanted_aliases=state.aliases,
            everything=everything,
            cast=cast,
        )

    table = read_contents(storage, root, rereads=rereads)
    if table is None:
        parts = read_parts(storage, root, rereads=rereads)
        saved = files_layout(root, parts)
        terms = sources(saved.shapes)
    else:
        terms = sources(table.shapes)
        shapes = {term.key: table.shapes[term.key] for found in terms.values() for term in found}
        needed = copy_plan(table.layout(shapes), wanted, terms=terms).sources
        parts = read_parts(storage, root, needed, rereads=rereads)
        saved = files_layout(root, parts, shapes)
    if any(isinstance(term.combine, WeightedSum) for found in terms.values() for term in found):
        raise InternalError("a weighted sum was planned for a load, which copies and casts only")
    plan = copy_plan(saved, wanted, terms=terms)
    if plan.missing:
        ranges = "\n".join(str(m) for m in plan.missing[:20])
        raise DamagedCheckpointError(
            f"{storage.uri} does not hold all of the state:\n{ranges}", hint="load another checkpoint"
        )
    reader = BlockReader(storage, root, parts, rereads)
    return LoadPlan(root, reader, reader.plan(plan.transfers))


def _nowhere(read: BlockRead) -> memoryview | None:
    """Only to be verified."""
    return None


def _let_go(read: BlockRead, data: memoryview) -> None:
    """It was verified."""


def _fill(
    reader: BlockReader, reads: Sequence[BlockRead], state: LocalState, alive: Callable[[], None], watch: LoadWatch
) -> None:
    targets: dict[StateKey, list[_Target]] = {}
    for tensor in state.tensors:
        targets.setdefault(tensor.key, []).append(_Target(tensor))

    def place(read: BlockRead) -> memoryview | None:
        if read.wanted_bytes != read.size or read.transfer.combine is not None:
            return None
        concerned = [target for target in targets[read.transfer.dst_key] if target.holds_of(read)]
        return concerned[0].memory(read) if len(concerned) == 1 else None

    @torch.no_grad()
    def take(read: BlockRead, data: memoryview) -> None:
        values = torch.frombuffer(data, dtype=dtype_of(read.transfer.src_key.dtype))
        for target in targets[read.transfer.dst_key]:
            target.take(read, values)

    reader.read_at_once(reads, place, take, alive, watch=watch.reading, moved=watch.moved)
    for target in (target for group in targets.values() for target in group):
        target.finish()


class _Target:
    """A live tensor as a flat destination; one that is not contiguous is filled through a contiguous copy."""

    def __init__(self, live: StateTensor) -> None:
        self._live = live
        tensor = live.tensor.detach()
        self._flat = (
            tensor if tensor.is_contiguous() else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        )

    def holds_of(self, read: BlockRead) -> Flat | None:
        """The first part of the run that belongs here."""
        return next(overlaps(self._live.shape, self._live.region, read.run), None)

    def memory(self, read: BlockRead) -> memoryview | None:
        """Where the run belongs, if all of it does, and that is host memory."""
        inside = self.holds_of(read) == read.run
        return byte_view(self._view(read.run)) if inside and self._flat.device.type == "cpu" else None

    def take(self, read: BlockRead, values: torch.Tensor) -> None:
        """Copies what of the run belongs here, casting if the dtypes differ."""
        for part in overlaps(self._live.shape, self._live.region, read.run):
            begin = part.start - read.run.start
            self._view(part).copy_(values[begin : begin + part.volume])

    def _view(self, run: Flat) -> torch.Tensor:
        return run_view(self._flat, self._live.shape, self._live.region, run)

    def finish(self) -> None:
        """Brings a contiguous copy home."""
        if not self._live.tensor.is_contiguous():
            self._live.tensor.detach().copy_(self._flat)
