from e2e.conftest import corpus, local

__all__ = ["corpus", "local"]
