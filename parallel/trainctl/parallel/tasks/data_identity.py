"""Which data a run is on, as an object that travels with its state."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.core.errors import DataError


class DataIdentity:
    """Registered with the session, it refuses to continue a run on other samples than it was made with.

    A sample id means nothing on other data: a replacement whose node has other files, or a resume after the corpus
    changed, would otherwise train on something else without anybody noticing.
    """

    def __init__(self, digest: str, *, uri: str) -> None:
        self._digest = digest
        self._uri = uri

    def state_dict(self) -> dict[str, str]:
        """What is saved and copied to replacements."""
        return {"digest": self._digest}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Compares.

        Raises:
            DataError: the run that is to be continued was on other data.
        """
        if state["digest"] != self._digest:
            raise DataError(
                f"expected the data that the run was started with (digest {state['digest']}), "
                f"found {self._uri} with digest {self._digest} on this node",
                hint="give every node the same files, or start a new run (spec.checkpoint.resumeFrom: none)",
            )
