"""What a model keeps between runs: variables of VAR_HANDLE, and the values that they begin with."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UnsupportedError
from edgecnn.tflite.graph import Graph, Operator, Tensor

Key: TypeAlias = tuple[bytes, bytes]


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A variable as a ``tensor`` of its own, whose index no tensor of the graph has, and its ``initial`` values."""

    tensor: Tensor
    initial: NDArray[Any]


def variables(graph: Graph) -> Mapping[int, Variable]:
    """The variables of ``graph``, by the index of each tensor that is a handle of one.

    A variable begins with what the subgraph of a CALL_ONCE assigns to it, otherwise with its zero point.

    Raises:
        UnsupportedError: such a subgraph does more than assign constants, or CALL_ONCE is not the first operator.
    """
    own, given = handles(graph), dict[Key, NDArray[Any]]()
    for operator in graph.operators:
        if operator.kind == "CALL_ONCE":
            if any(one.kind in ("READ_VARIABLE", "ASSIGN_VARIABLE") for one in graph.operators[: operator.position]):
                raise UnsupportedError(f"{operator} comes after its variables are used, which is not supported in C")
            given |= _assigned(operator, graph.subgraphs[operator.options["initSubgraphIndex"]])
    found: dict[Key, Variable] = {}
    for operator in graph.operators:
        index = {"READ_VARIABLE": operator.outputs[:1], "ASSIGN_VARIABLE": operator.inputs[1:2]}.get(operator.kind)
        if not index or operator.inputs[0] not in own or own[operator.inputs[0]] in found:
            continue
        key, like = own[operator.inputs[0]], graph.tensors[index[0]]
        shape = tuple(max(size, 1) for size in like.shape)
        number, name = len(graph.tensors) + len(found), key[1].decode(errors="replace") or like.name
        tensor = msgspec.structs.replace(like, index=number, name=name, shape=shape, data=None, variable=True)
        initial = given.get(key, np.full(shape, like.zero_point[0] if len(like.zero_point) else 0, like.dtype))
        found[key] = Variable(tensor=tensor, initial=initial)
    return {handle: found[key] for handle, key in own.items() if key in found}


def handles(graph: Graph) -> dict[int, Key]:
    """Container and name of the variable of each handle."""
    return {
        operator.outputs[0]: (operator.options.get("container") or b"", operator.options.get("sharedName") or b"")
        for operator in graph.operators
        if operator.kind == "VAR_HANDLE" and operator.outputs
    }


def _assigned(call: Operator, graph: Graph) -> dict[Key, NDArray[Any]]:
    """The constants that a subgraph assigns to variables."""
    own, found = handles(graph), dict[Key, NDArray[Any]]()
    for operator in graph.operators:
        values = graph.tensors[operator.inputs[1]].data if operator.kind == "ASSIGN_VARIABLE" else None
        if values is not None and operator.inputs[0] in own:
            found[own[operator.inputs[0]]] = values
        elif operator.kind != "VAR_HANDLE":
            raise UnsupportedError(
                f"{call}: its subgraph has {operator}; only constants that are assigned to variables are supported in C"
            )
    return found
