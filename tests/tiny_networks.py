"""Every network of MODELS made narrow, and something for each of their inputs to hear."""

import math

import torch

K, F = 3, 64
NARROW = {"widths": (4, 8, 8, 8, 16, 16), "embedding": 16}
SMALL = {  # the large ones made narrow, by their own parameters; a network that is not named here is tested as it is
    "cnn14_att": NARROW,
    "cnn14_max": NARROW,
    "cnn14_avg": NARROW,
    "cnn14": NARROW,
    "cnn10": {"widths": (4, 8, 8, 8), "embedding": 16},
    "cnn6": {"widths": (4, 8, 8, 8), "embedding": 16},
    "se_trans": {"widths": (8, 16), "heads": 4, "ffn": 8},
    "cnn4_trans": {"widths": (8, 16), "heads": 4, "ffn": 8},
    "cnn5": {"widths": (4, 8, 8, 8)},
    "cnn9": {"widths": (4, 8, 8, 8)},
    "cnn13": {"widths": (4, 8, 8, 8, 8, 16)},
    "cnn_bigru_avg": {"widths": (4, 8, 8, 8), "units": 8},
    "urban_baseline": {"piece_frames": 20, "hidden": 16},
    "separable_cnn": {"widths": (8, 8, 8, 16), "hidden": 16},
    "resnet22": {"widths": (4, 8, 8, 8), "last_width": 16, "embedding": 16},
    "resnet38": {"widths": (4, 4, 8, 8), "last_width": 16, "embedding": 16},
    "resnet54": {"widths": (2, 2, 4, 4), "last_width": 16, "embedding": 16},
    "mobilenet_v1": {"width": 0.1, "embedding": 16},
    "mobilenet_v2": {"width": 0.25, "embedding": 16},
    "dainet19": {"widths": (4, 8, 8, 8), "embedding": 16},
    "leenet11": {"widths": (4,) * 8 + (8,), "embedding": 16},
    "leenet24": {"widths": (4,) * 8 + (8,), "embedding": 16},
    "res1dnet31": {"widths": (2, 4, 4, 8, 8, 8, 8), "embedding": 16},
    "res1dnet51": {"widths": (2, 4, 4, 8, 8, 8, 8), "embedding": 16},
    "wavegram_cnn14": NARROW | {"pre_widths": (4, 4)},
    "wavegram_logmel_cnn14": NARROW | {"pre_widths": (4, 4)},
    "vggish": {"widths": (4, 8, 8, 8), "hidden": 16, "embedding": 16},
    "cross_task_fa": {"widths": (4, 8, 8, 8), "attention": 8},
    "cross_task_vem": {"widths": (4, 8, 8, 8), "attention": 8},
    "cross_task_jrm": {"widths": (4, 8, 8, 8), "deep_widths": (4, 8, 8, 8, 8, 8, 16), "attention": 8},
    "cross_task_cmam": {"widths": (4, 8, 8, 8), "query_dim": 32, "attention": 8},
    "talnet": {"embedding": 32, "input_norm": True},
    "urban_tagger": {
        "branches": ("generic", "specific", "metadata"),
        "columns": ("latitude", "longitude", "hour"),
        "embedding": 32,
        "heads": 4,
        "ffn": 8,
        "metadata_size": 8,
        "place_width": 4,
    },
    "ast": {
        "architecture": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_length": 101,
        },
        "input_norm": True,
    },
    "waveform_transformer": {
        "architecture": {
            "model_type": "wav2vec2",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": [8, 8, 8],
            "conv_kernel": [10, 8, 8],
            "conv_stride": [5, 8, 8],
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
            "num_feat_extract_layers": 3,
        }
    },
    "timm_sed": {"backbone": "test_efficientnet", "pretrained": False, "units": 16},
    "transfer": {"base": "cnn6", "base_params": {"widths": (4, 8, 8, 16), "embedding": 64}, "freeze": False},
}
INPUTS = {
    "logmel": lambda batch, frames: torch.randn(batch, 1, frames, F) * 8 - 30,
    "waveform": lambda batch, frames: torch.randn(batch, 320 * frames - 160) * 0.1,  # of a clip with so many frames
    "extractor": lambda batch, frames: torch.randn(batch, 1 + frames // 10, 128).relu(),
    "metadata": lambda batch, frames: torch.tensor([[math.nan] * 3, [40.7, -74, 0], [40.8, -73.9, 11], [40, -74, 23]])[
        -batch:
    ],  # a clip of four has none
    "vggish": lambda batch, frames: torch.randn(batch, 1 + frames // 48, 96, 64),
}
