"""Dilated context behind the stages of `cnn_small`: what it adds to a segment, and how far it hears."""

import pytest
import torch
import torch.nn.functional as F_

from earshot.models import build_model
from earshot.models.cnn import ContextBlock
from tiny_networks import F, K


def test_context_is_added_to_what_each_segment_heard_itself():
    """By hand: x + relu(norm(w0 x[t - 2] + w1 x[t] + w2 x[t + 2])), zeros beyond both ends."""
    torch.manual_seed(0)
    block, x = ContextBlock(3, 2).eval(), torch.randn(2, 3, 9)
    padded, w = F_.pad(x, (2, 2)), block.conv.weight
    heard = sum(torch.einsum("oi,bit->bot", w[:, :, i], padded[:, :, 2 * i : 2 * i + 9]) for i in range(3))
    torch.testing.assert_close(block(x), x + F_.relu(heard / (1 + block.bn.eps) ** 0.5))


def test_cnn_small_hears_as_far_as_its_dilations_add_up_to():
    """Without time strides and with 3x3 stages of 4 convolutions, 4 frames either side, and 1 + 3 more by dilations."""
    params = {"widths": [4, 4], "blocks": [1, 1], "time_strides": [1, 1], "freq_strides": [2, 2], "embedding": 8}
    torch.manual_seed(0)
    x = torch.randn(1, 1, 41, F)
    changed = x.clone()
    changed[:, :, 20] += 5
    for dilations, reach in (((), 4), ((1, 3), 8)):
        model = build_model("cnn_small", K, F, params | {"dilations": list(dilations)}).eval()
        with torch.no_grad():
            apart = (model(logmel=x)["segmentwise_logit"] - model(logmel=changed)["segmentwise_logit"]).abs().amax(2)[0]
        assert apart.nonzero()[:, 0].tolist()[:: 2 * reach] == [20 - reach, 20 + reach]
    assert not [name for name in build_model("cnn_small", K, F).state_dict() if name.startswith("context")]
    with pytest.raises(ValueError, match=r"'dilations' of model cnn_small must be 1 or more, got \[1, 0\]"):
        build_model("cnn_small", K, F, {"dilations": [1, 0]})
