"""Every error Tempo raises on purpose.

    TempoError                    exit code of the command line
    ├── UsageError                2  bad call, setting or model
    │   └── UnsupportedError      2  a layer, dtype or use that Tempo refuses, and what to do instead
    ├── KeySpentError             1  a single-use key was asked to hide a second operand
    ├── IntegrityError            1  a reply failed its check
    ├── TamperedError             1  a log, a sealed file or a proof is not what was written or signed
    ├── RefusedError              1  evidence of a TEE did not convince: which step, found, expected
    └── OutsideError              3  worker, file, network
        ├── WorkerError           3  a worker did not deliver
        │   ├── WorkerLost        3  it is gone: closed, killed, or past its deadline
        │   ├── ProtocolError     3  it sent what the protocol forbids
        │   └── OperandMissing    3  it no longer holds an operand that only it had
        ├── NoWorkersLeft         3  nobody is left to ask, and the master may not compute
        ├── ServiceBusy           3  more requests wait than may, or the service is closing
        └── DataError             3  a data set could not be had or is not what it claims

PublicWeightsWarning, a UserWarning, is no error: weights that are public under a scheme that they weaken.

A message says what was wrong, what was expected and what to do.
"""

from __future__ import annotations


class TempoError(Exception):
    """Root of the tree."""

    exit_code = 1


class UsageError(TempoError, ValueError):
    exit_code = 2


class UnsupportedError(UsageError):
    """Tempo refuses `what`; `instead` is what the user can do."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}. Instead: {instead}.")
        self.what = what
        self.instead = instead


class PublicWeightsWarning(UserWarning):
    """Weights were declared public, and the scheme in use leaks by them."""


class KeySpentError(TempoError):
    pass


class IntegrityError(TempoError):
    pass


class TamperedError(TempoError):
    pass


class RefusedError(TempoError):
    """Evidence was refused at `step` (kind, number and name): `found` is what it says, `expected` what it
    should."""

    def __init__(self, step: str, found: str, expected: str) -> None:
        super().__init__(f"refused at step {step}: found {found}, expected {expected}")
        self.step = step
        self.found = found
        self.expected = expected


class OutsideError(TempoError):
    exit_code = 3


class WorkerError(OutsideError):
    pass


class WorkerLost(WorkerError):
    pass


class ProtocolError(WorkerError):
    pass


class OperandMissing(WorkerError):
    pass


class NoWorkersLeft(OutsideError):
    pass


class ServiceBusy(OutsideError):
    pass


class DataError(OutsideError):
    pass
