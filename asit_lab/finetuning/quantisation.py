"""Dynamic int8 quantisation of exported ONNX models: weights in 8 bits, activations quantised as they come."""

import logging
from pathlib import Path

_QUANTISED = ("MatMul", "Gemm")
_IN_FP32 = ("front_end.", "head.")  # inputs of products that stay in fp32: a power spectrum has too wide a range


def quantise_onnx(path: Path) -> None:
    """Replace the products with weights in an ONNX file by integer ones, one scale for each output channel.

    Products of the front end and of a probe's head stay as they are, and so do those without weights (attention).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    weights = {initializer.name for initializer in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        has_weights = bool(weights & set(node.input))
        if node.op_type in _QUANTISED and (not has_weights or any(name.startswith(_IN_FP32) for name in node.input)):
            kept.append(node.name)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    # The advice to optimise the graph first goes to the root logger; torch's exporter has done that.
    level, logger = logging.getLogger().level, logging.getLogger()
    logger.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
        )
    finally:
        logger.setLevel(level)
    written = onnx.load(path)
    onnx.helper.set_model_props(written, properties)
    onnx.save(written, path)
