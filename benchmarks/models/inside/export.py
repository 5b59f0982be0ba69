"""Runs in the models' own environment: exports networks with random weights from PyTorch.

`python export.py {bert|cnn} FILE.onnx`. The architectures are transformers' own; nothing is downloaded.
"""

import sys

import torch
from transformers import BertConfig, BertForSequenceClassification, ResNetConfig, ResNetForImageClassification

SEED = 20
OPSET = 20


class Logits(torch.nn.Module):
    """A network whose answer is its logits alone, inputs by position."""

    def __init__(self, network, names):
        super().__init__()
        self._network = network
        self._names = names

    def forward(self, *inputs):
        """[batch, ...] per input to [batch, classes]."""
        return self._network(**dict(zip(self._names, inputs, strict=True))).logits


def bert():
    """BERT-Small (4 layers, 512 wide, 8 heads; Turc et al. 2019), two classes, 64 tokens."""
    config = BertConfig(
        num_hidden_layers=4, hidden_size=512, num_attention_heads=8, intermediate_size=2048, num_labels=2
    )
    ids = torch.randint(0, config.vocab_size, (2, 64))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return BertForSequenceClassification(config), inputs


def cnn():
    """ResNet-18 (He et al. 2015), 1000 classes, 224 x 224 pixels."""
    config = ResNetConfig(layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], embedding_size=64)
    config.num_labels = 1000
    return ResNetForImageClassification(config), {"pixel_values": torch.randn(2, 3, 224, 224)}


def export(network, inputs, path):
    """Writes one file, free in its batch dimension."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        Logits(network.eval(), tuple(inputs)),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes=(tuple({0: batch} for _ in inputs),),
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
    )


if __name__ == "__main__":
    torch.manual_seed(SEED)
    export(*{"bert": bert, "cnn": cnn}[sys.argv[1]](), sys.argv[2])
