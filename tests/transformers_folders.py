"""Small networks of transformers in folders, as save_pretrained writes them: what no hub is needed for."""

import json
from pathlib import Path

import torch

AST_SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_length": 96,
    "num_mel_bins": 64, "num_labels": 7,
}  # fmt: skip
WAVEFORM_SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [5, 16], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "num_labels": 7,
}  # fmt: skip


def ast_folder(folder: Path, mean: float = -6.0, deviation: float = 4.0) -> Path:
    """An AST of seven classes with random weights, and its feature extractor."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    network = ASTForAudioClassification(ASTConfig(**AST_SIZES))
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # tokens and positions start at 0
    network.save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=64, max_length=96, mean=mean, std=deviation).save_pretrained(folder)
    return folder


def waveform_folder(folder: Path, kind: str = "hubert", normalise: bool = True) -> Path:
    """A HuBERT or Wav2Vec2 of seven classes with random weights, a step of 80 samples, and its feature extractor."""
    from transformers import AutoConfig, AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **WAVEFORM_SIZES)
    AutoModelForAudioClassification.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return folder


def changed(folder: Path, name: str = "config.json", **values) -> Path:
    """The folder with other values in one of its JSON files; None takes a key out."""
    file = folder / name
    found = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return folder
