"""Find the nodes of an .onnx file that can saturate on x86 without VNNI, from the file alone, on any processor.

The rules were found by running each operator with ONNX Runtime's AVX2 kernels; QAttention is assumed to behave like the
others. The operators of ``_INTEGER`` saturate with uint8 activations and int8 weights. So do Conv, Gemm and MatMul
between DequantizeLinear and QuantizeLinear (optional after Gemm and MatMul), also with int8 activations, because these
are stored as uint8 on x86. ConvInteger and a MatMul of two activations do not saturate.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from edgecnn.formats.onnx import saturation
from edgecnn.optional import require

# Input positions of the weights and of the activations' zero point, and the output axis of the weights. A missing zero
# point means uint8, and so does a computed one (by DynamicQuantizeLinear).
_INTEGER = {
    "QLinearConv": (3, 2, 0), "QLinearMatMul": (3, 2, -1), "QGemm": (3, 2, -1), "MatMulInteger": (1, 2, -1),
    "MatMulIntegerToFloat": (1, 4, -1), "DynamicQuantizeMatMul": (1, None, -1), "QAttention": (1, 6, -1),
}  # fmt: skip
_IN_FLOAT = {"Conv": 0, "Gemm": -1, "MatMul": -1}
_BEFORE_QUANTIZING = ("Relu", "Clip")


def saturating(model: Any) -> frozenset[str]:
    """Names of the nodes of an onnx ``ModelProto`` in which a sum of products can saturate on x86 without VNNI.

    For an If that depends only on constants, the branch taken on such a processor counts.
    """
    file = _File(without_vnni(model).graph)
    return frozenset(node.name for node in file.nodes if file.saturates(node))


def without_vnni(model: Any) -> Any:
    """A copy of ``model`` as executed on x86 without VNNI: each constant If replaced by the branch taken there."""
    return without_constant_ifs(model, _on_saturating)


def without_constant_ifs(model: Any, compute: Callable[[Any], bool]) -> Any:
    """A copy of ``model`` with each If that has a constant condition replaced by the branch taken.

    Nodes needed only for these conditions are removed. ONNX Runtime does the same when it loads a file. ``compute``
    returns the condition, the only output of a model without inputs, as computed by a processor; if it raises
    ``NotImplementedError``, the If stays. A node from a branch is named after its If.
    """
    resolved = require("onnx").ModelProto()
    resolved.CopyFrom(model)
    graph = resolved.graph
    nodes, constants = list(graph.node), {tensor.name for tensor in graph.initializer}
    del graph.node[:]
    conditions: dict[str, bool | None] = {}
    while nodes:
        node = nodes.pop(0)
        if (node.input and all(name in constants for name in node.input if name)) or node.op_type == "Constant":
            constants.update(node.output)
        if node.op_type != "If" or node.input[0] not in constants:
            graph.node.append(node)
            continue
        name = node.input[0]
        if name not in conditions:
            try:
                conditions[name] = compute(_making(resolved, name))
            except NotImplementedError:
                conditions[name] = None
        if conditions[name] is None:
            graph.node.append(node)
            continue
        branch = next(a.g for a in node.attribute if a.name == ("then_branch" if conditions[name] else "else_branch"))
        graph.initializer.extend(branch.initializer)
        constants.update(tensor.name for tensor in branch.initializer)
        nodes[:0] = _inlined(node, branch)
    if any(condition is not None for condition in conditions.values()):
        needed = _needed({value.name for value in graph.output}, graph.node)
        del graph.node[:]
        graph.node.extend(needed)
    return resolved


def _needed(wanted: set[str], nodes: Iterable[Any]) -> list[Any]:
    """Those of the ordered ``nodes`` that the values called ``wanted`` are computed from."""
    found, names = [], set(wanted)
    for node in reversed(list(nodes)):
        if names & set(node.output):
            found.append(node)
            names.update(name for inner in (node, *(n for g in _inside(node) for n in g.node)) for name in inner.input)
    return found[::-1]


def _inlined(node: Any, branch: Any) -> list[Any]:
    """The nodes of a branch, giving the outputs of the If ``node``."""
    outputs = {inner.name: outer for inner, outer in zip(branch.output, node.output, strict=True)}
    made = []
    for number, inner in enumerate(branch.node):
        copy = type(inner)()
        copy.CopyFrom(inner)
        copy.name = f"{node.name}/{inner.name or inner.op_type}#{number}"
        copy.input[:] = [outputs.get(name, name) for name in inner.input]
        copy.output[:] = [outputs.get(name, name) for name in inner.output]
        made.append(copy)
    return made


def _making(model: Any, name: str) -> Any:
    """A model without inputs that computes the value ``name`` of ``model`` from constants."""
    helper = require("onnx").helper
    result = f"{name}/condition"  # an output must be made by a node, and the condition may be stored
    nodes = [*_needed({name}, model.graph.node), helper.make_node("Identity", [name], [result])]
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    output = helper.make_tensor_value_info(result, require("onnx").TensorProto.BOOL, None)
    graph = helper.make_graph(nodes, "condition", [], [output], weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _on_saturating(model: Any) -> bool:
    """The output of ``model`` on a processor whose sums saturate.

    Raises:
        NotImplementedError: the reference implementation of ONNX cannot compute it.
    """
    operator = require("onnx.reference.op_run").OpRun

    class MatMulInteger(operator):  # type: ignore[misc, valid-type]
        def _run(self, a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> tuple[Any]:
            del a_zero, b_zero  # zero points are subtracted from the sum; a probe has none
            a, b = a.astype(np.int32), b.astype(np.int32)
            odd = a.shape[-1] % 2
            products = np.pad(
                a[..., :, None, :] * np.moveaxis(b, -2, -1)[..., None, :, :], [(0, 0)] * a.ndim + [(0, odd)]
            )
            pairs = products.reshape(*products.shape[:-1], -1, 2).sum(-1)
            return (np.clip(pairs, -(2**15), 2**15 - 1).sum(-1).astype(np.int32),)

    try:
        (value,) = require("onnx.reference").ReferenceEvaluator(model, new_ops=[MatMulInteger]).run(None, {})
    except Exception as error:  # an untrusted graph can raise any exception
        raise NotImplementedError from error
    return bool(np.all(value))


class Wiring:
    """Nodes, the ``constants`` that they read, and the producer and consumers of each value, by name."""

    def __init__(self, nodes: Iterable[Any], initializers: Iterable[Any]) -> None:
        self.nodes = list(nodes)
        self.constants = {tensor.name: tensor for tensor in initializers}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.producer = {output: node for node in self.nodes for output in node.output if output}
        self.consumers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)


class _File(Wiring):
    """All nodes of a file, including nodes of nested graphs."""

    def __init__(self, graph: Any) -> None:
        graphs = list(_graphs(graph))
        super().__init__(
            (node for each in graphs for node in each.node),
            (tensor for each in graphs for tensor in each.initializer),
        )

    def saturates(self, node: Any) -> bool:
        """Whether sums of products in ``node`` can overflow 16 bits."""
        if node.op_type in _INTEGER:
            weights, zero, axis = _INTEGER[node.op_type]
            signed = zero is not None and len(node.input) > zero and self._type(node.input[zero]) == np.int8
            return not signed and self._can(node, node.input[weights], axis)
        if node.op_type not in _IN_FLOAT or len(node.input) < 2:
            return False
        before = [self.producer[name] for name in node.input[:2] if name in self.producer]
        if [one.op_type for one in before] != ["DequantizeLinear"] * 2:
            return False
        stored = before[1].input[0]
        if stored not in self.constants or (node.op_type == "Conv" and not self._is_quantized(node.output[0])):
            return False
        return self._can(node, stored, _IN_FLOAT[node.op_type])

    def _can(self, node: Any, weights: str, axis: int) -> bool:
        tensor = self.constants.get(weights)
        if tensor is None:  # computed weights can have any values
            return True
        array = require("onnx").numpy_helper.to_array(tensor)
        if array.dtype != np.int8 or array.ndim < 2:
            return False
        outputs = 0 if _attribute(node, "transB", 0) else axis
        return saturation.possible(np.moveaxis(array, outputs, 0), _attribute(node, "group", 1))

    def _type(self, name: str) -> Any:
        tensor = self.constants.get(name)
        return None if tensor is None else require("onnx").helper.tensor_dtype_to_np_dtype(tensor.data_type)

    def _is_quantized(self, name: str) -> bool:
        """Whether a value is quantised next, after at most one activation."""
        users = self.consumers.get(name, [])
        if len(users) == 1 and users[0].op_type in _BEFORE_QUANTIZING:
            users = self.consumers.get(users[0].output[0], [])
        return any(user.op_type == "QuantizeLinear" for user in users)


def _graphs(graph: Any) -> Iterator[Any]:
    """``graph`` and the graphs nested in its nodes."""
    yield graph
    for node in graph.node:
        yield from _inside(node)


def _inside(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            yield from _graphs(inner) if inner.node else ()


def _attribute(node: Any, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)
