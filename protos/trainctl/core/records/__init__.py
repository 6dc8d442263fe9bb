"""The records that controller, agent and worker exchange: pure data, one meaning on every side."""
