"""Private tensors: jobs that are not a whole network, over the same three parties and protocols. docs/howto/private_tensors.md shows how."""

from threepc.tensors.owners import Shares, share
from threepc.tensors.parties import Asking, LocalParties, Results, local, provide, serve
from threepc.tensors.program import Job, Policy, Program, trace
from threepc.tensors.tensor import Labels, Tensor, concatenate, maximum, minimum, where

__all__ = [
    "Asking",
    "Job",
    "Labels",
    "LocalParties",
    "Policy",
    "Program",
    "Results",
    "Shares",
    "Tensor",
    "concatenate",
    "local",
    "maximum",
    "minimum",
    "provide",
    "serve",
    "share",
    "trace",
    "where",
]
