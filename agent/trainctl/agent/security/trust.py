"""What an agent is given to begin with: whom to trust, and what lets it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainctl.core.errors import PermissionDeniedError, PreconditionError, UsageError
from trainctl.core.join_token import MAX_CHARACTERS, SHAPE, JoinText, read_join_text


class JoinTokenNeededError(PreconditionError):
    """Without a join token this machine cannot become a node."""

    code = "JOIN_TOKEN_NEEDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Files that the agent was started with; read again each time they are needed.

    Attributes:
        ca_file: certificates of whoever signs for the controllers' API port, PEM; None: the join token says it.
        join_token_file: None if there is none.
    """

    ca_file: Path | None
    join_token_file: Path | None

    def join_text(self, why: str) -> JoinText:
        """The join token.

        Args:
            why: it is needed, for people.

        Raises:
            JoinTokenNeededError: there is none.
            UsageError: the file holds something else.
        """
        hint = "`trainctl nodes join-token --out FILE` makes one; start the agent with --join-token-file FILE"
        if self.join_token_file is None:
            raise JoinTokenNeededError(f"{why}: a join token is needed, and no --join-token-file was given", hint=hint)
        try:
            with self.join_token_file.open("rb") as file:
                text = file.read(MAX_CHARACTERS + 2).decode("ascii")
        except FileNotFoundError as error:
            where = f"the file {self.join_token_file} does not exist"
            raise JoinTokenNeededError(f"{why}: a join token is needed, and {where}", hint=hint) from error
        except OSError as error:
            raise PermissionDeniedError(
                f"--join-token-file {self.join_token_file} cannot be read: {error.strerror}", hint="is it this user's?"
            ) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"--join-token-file {self.join_token_file}: expected {SHAPE}", hint=hint) from error
        try:
            return read_join_text(text)
        except ValueError as error:
            raise UsageError(f"--join-token-file {self.join_token_file}: {error}", hint=hint) from error

    def authority(self, kept: bytes | None) -> bytes:
        """Whom to trust on the API port, PEM: the given file, else what was kept, else what the join token says.

        Raises:
            TrainctlError: nothing says it, or the file cannot be read.
        """
        if self.ca_file is None:
            return kept if kept is not None else self.join_text("nothing says whom to trust").authority_pem
        try:
            return self.ca_file.read_bytes()
        except OSError as error:
            raise PermissionDeniedError(
                f"--ca-file {self.ca_file} cannot be read: {error.strerror}", hint="is it this user's?"
            ) from error
