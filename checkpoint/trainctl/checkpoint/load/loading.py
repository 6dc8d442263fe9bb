"""Loading a checkpoint into live tensors, whatever the layouts on both sides.

All or nothing: keys, shapes, dtypes and coverage are compared first, then every byte that is needed is read and
verified once without being kept, and only then are the bytes read again (and verified again) into the live tensors. So
memory is bounded, and a damaged checkpoint leaves the state as it was. ``verify_first=False`` skips the first reading,
for a state that is worthless anyway. What fails in the second reading raises an error that calls the state poisoned, if
anything of it was changed.

Ranks that load at the same time read every byte once between them (``sharing``).
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.layout.combine import Term, WeightedSum
from trainctl.checkpoint.layout.copy_plan import copy_plan
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import rank_holder
from trainctl.checkpoint.layout.region import Shape
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.load.block_read import BlockRead
from trainctl.checkpoint.load.blocks import BlockReader
from trainctl.checkpoint.load.filling import Filling
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.matching import match
from trainctl.checkpoint.load.readers import Readers
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.checkpoint.manifest.reading import (
    check_files,
    files_layout,
    read_contents,
    read_parts,
    read_root,
)
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.manifest.values import decode_value
from trainctl.checkpoint.storage.errors import remedy, storage_errors
from trainctl.checkpoint.storage.failures import StorageSaysNoError
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import DamagedCheckpointError, InternalError, StorageAwayError
from trainctl.core.records.generation import CheckpointRef

_Terms = Mapping[StateKey, tuple[Term, ...]]
_SHOWN_EVERY_S = 0.5
_POISONED = "the state of this process is poisoned: some of its tensors hold values of step {}"
_UNTOUCHED = "no tensor of this process was changed"


def load(
    ref: CheckpointRef,
    state: LocalState,
    *,
    everything: Iterable[StateKey] | None = None,
    kinds: Collection[str] | None = None,
    cast: bool = False,
    verify_first: bool = True,
    all_here: bool = True,
    alive: Callable[[], None] = nothing,
    watch: LoadWatch | None = None,
    plan: LoadPlan | None = None,
    sharing: Sharing | None = None,
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
        sharing: how to reach the other ranks, which load the same checkpoint now; None: this one reads for itself. Then
            ``verify_first`` is for the caller, who has to know how it went on all ranks before one fills its state
            (``LoadPlan.verify``), and no state is right before all ranks have returned.

    Raises:
        UnfitCheckpointError: the checkpoint does not fit; all differences are listed.
        DamagedCheckpointError: it is incomplete or corrupt; says where.
        StorageRefusedError, StorageAwayError: it cannot be read.
        CheckpointError: it was written by a version that this one cannot read.
    """
    if sharing is not None and verify_first:
        raise InternalError("what several ranks read for each other is verified by all of them before one is filled")
    watch = watch or LoadWatch()
    plan = plan or plan_load(
        ref,
        state,
        everything=everything,
        kinds=kinds,
        cast=cast,
        all_here=all_here,
        alive=alive,
        watch=watch,
        sharing=sharing,
    )
    if verify_first:
        plan.verify(alive=alive, watch=watch)
    plan.fill(alive=alive, watch=watch)
    return plan.objects


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What a load of one checkpoint into one state reads, and by whom.

    Attributes:
        ref: the checkpoint.
        root: its manifest.
        state: the live tensors.
        reader: of its files.
        reads: what this rank takes.
        readers: says who takes and reads what.
        sharing: how to reach the others; None: there are none.
    """

    ref: CheckpointRef
    root: RootManifest
    state: LocalState
    reader: BlockReader
    reads: Sequence[BlockRead]
    readers: Readers
    sharing: Sharing | None

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the data files, sorted."""
        return tuple(sorted({read.path for read in self.reads}))

    @property
    def wanted_bytes(self) -> int:
        """Tensor bytes that this rank wants."""
        return sum(self.readers.wanted_bytes(read) for read in self.reads)

    @property
    def objects(self) -> Mapping[str, Any]:
        """What was saved beside the tensors."""
        found: Mapping[str, Any] = decode_value(self.root.objects)
        return found

    def verify(self, *, alive: Callable[[], None] = nothing, watch: LoadWatch | None = None) -> None:
        """Reads what this rank is to read, and keeps nothing.

        Raises:
            DamagedCheckpointError, StorageAwayError: as ``load``; no state was touched.
        """
        watch = watch or LoadWatch()
        own = [read for read in self.reads if read.reader == self.readers.rank]
        others = [read for read in self.reads if read.reader != self.readers.rank]
        with _reading(self.ref, alive):
            # Twice: who verifies fills afterwards.
            total_bytes = 2 * _block_bytes(own) + sum(self.readers.wanted_bytes(read) for read in others)
            watch.planned(data_bytes=self.wanted_bytes, total_bytes=total_bytes)
            self.reader.verify_headers({read.path for read in own})
            self.reader.read_at_once(own, _nowhere, _let_go, alive, watch=watch.reading, moved=watch.moved)

    def fill(self, *, alive: Callable[[], None] = nothing, watch: LoadWatch | None = None) -> None:
        """Brings everything into the live tensors.

        Raises:
            DamagedCheckpointError, StorageAwayError: as ``load``; says whether the state is poisoned.
        """
        watch = watch or LoadWatch()
        with _reading(self.ref, alive):
            filling = Filling(
                self.reader, self.reads, self.readers, self.state, sharing=self.sharing, alive=alive, watch=watch
            )
            watch.planned(data_bytes=self.wanted_bytes, total_bytes=filling.total_bytes)
            try:
                filling.run()
            except DamagedCheckpointError as error:
                raise DamagedCheckpointError(
                    f"{error}; {self._state_after(filling)}",
                    hint="restore the checkpoint's files from a copy, or name another one",
                ) from error
            except OSError as error:
                text = f"{error}; {self._state_after(filling)}"
                raise StorageSaysNoError(error.errno or errno.EIO, text, again=False, hint=remedy(error)) from error

    def _state_after(self, filling: Filling) -> str:
        return _POISONED.format(self.root.step) if filling.touched else _UNTOUCHED


def plan_load(
    ref: CheckpointRef,
    state: LocalState,
    *,
    everything: Iterable[StateKey] | None = None,
    kinds: Collection[str] | None = None,
    cast: bool = False,
    all_here: bool = False,
    alive: Callable[[], None] = nothing,
    watch: LoadWatch | None = None,
    sharing: Sharing | None = None,
) -> LoadPlan:
    """What ``load`` would read; the arguments are its own. Without ``all_here`` only the manifests have to be there.

    Raises:
        UnfitCheckpointError, DamagedCheckpointError, StorageRefusedError, StorageAwayError: as ``load``.
    """
    with _reading(ref, alive):
        names = {(key.fqn, key.kind) for key in (state.shapes() if everything is None else everything)}
        storage = open_storage(ref.uri)
        rereads = (watch or LoadWatch()).rereads
        root, _ = read_root(storage, expected_sha256=ref.manifest_sha256, rereads=rereads)
        if all_here:
            check_files(storage, root)
        return _planned(storage, ref, root, state, names, kinds=kinds, cast=cast, rereads=rereads, sharing=sharing)


@contextlib.contextmanager
def _reading(ref: CheckpointRef, alive: Callable[[], None]) -> Generator[None, None, None]:
    with storage_errors(f"loading {ref.uri}"), _damage_of(ref), _shown(ref, alive):
        yield


@contextlib.contextmanager
def _shown(ref: CheckpointRef, alive: Callable[[], None]) -> Generator[None, None, None]:
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
def _damage_of(ref: CheckpointRef) -> Generator[None, None, None]:
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


def _planned(
    storage: Storage,
    ref: CheckpointRef,
    root: RootManifest,
    state: LocalState,
    everything: set[tuple[str, str]],
    *,
    kinds: Collection[str] | None,
    cast: bool,
    rereads: Rereads,
    sharing: Sharing | None,
) -> LoadPlan:
    own = state.layout(rank_holder(sharing.exchange.rank if sharing is not None else 0))

    def sources(shapes: Mapping[StateKey, Shape]) -> _Terms:
        return match(
            {key: shape for key, shape in shapes.items() if kinds is None or key.kind in kinds},
            own.shapes,
            where=storage.uri,
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
        needed = copy_plan(table.layout(shapes), own, terms=terms).sources
        parts = read_parts(storage, root, needed, rereads=rereads)
        saved = files_layout(root, parts, shapes)
    if any(isinstance(term.combine, WeightedSum) for found in terms.values() for term in found):
        raise InternalError("a weighted sum was planned for a load, which copies and casts only")
    plan = copy_plan(saved, own, terms=terms)
    if plan.missing:
        ranges = "\n".join(str(m) for m in plan.missing[:20])
        raise DamagedCheckpointError(
            f"{storage.uri} does not hold all of the state:\n{ranges}", hint="load another checkpoint"
        )
    reader = BlockReader(storage, root, parts, rereads)
    readers = sharing.readers if sharing is not None else Readers(own, 0, 1)
    reads = reader.plan(plan.transfers, readers)
    return LoadPlan(ref=ref, root=root, state=state, reader=reader, reads=reads, readers=readers, sharing=sharing)


def _block_bytes(reads: Iterable[BlockRead]) -> int:
    """Of all of them; a block may have several takes."""
    return sum({(read.path, read.begin): read.size for read in reads}.values())


def _nowhere(read: BlockRead) -> memoryview | None:
    """Only to be verified."""
    return None


def _let_go(read: BlockRead, data: memoryview) -> None:
    """It was verified."""
