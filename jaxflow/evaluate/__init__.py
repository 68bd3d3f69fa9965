"""Does an attribution predict what the model does? Pure functions over any scores, ours or not.

| measure | question | better | of |
|---|---|---|---|
| `Faithfulness.comprehensiveness` | does the number fall without the best tokens? | more | DeYoung et al. 2020 |
| `Faithfulness.sufficiency` | does it stay with these alone? | less | DeYoung et al. 2020 |
| `Faithfulness.log_odds` | does its logarithm fall without them? | less | Shrikumar et al. 2017 |
| `ErasureCurves.deletion` | how long does it stay while the best are taken away? | less | Petsiuk et al. 2018 |
| `ErasureCurves.activation` | how soon is it there while the best are given? | more | Ali et al. 2022 |
| `ErasureCurves.pruning` | how far is it off while the worst are taken away? | less | Ali et al. 2022 |
| `rank_correlation` with `leave_one_out` | are tokens in the order of what their removal does? | more | Abnar & Zuidema 2020 |
| `rank_correlation` with `gradient_norm` | are they in the order of the gradient's size? | more | Abnar & Zuidema 2020 |
| `CutEffect.fall` | does a minimum cut hold what the flow claims? | more | ours |
| `SanityCheck.correlations` | are scores the same without what was learned? | nearer to 0 | Adebayo et al. 2018 |
"""

from jaxflow.capture import knock_out
from jaxflow.evaluate._bootstrap import Bootstrap
from jaxflow.evaluate._compare import compare
from jaxflow.evaluate._comparison import Comparison
from jaxflow.evaluate._curves import ErasureCurves, erasure_curves
from jaxflow.evaluate._cuts import CutEffect, cut_effect
from jaxflow.evaluate._decisions import Decision, next_token, predicted_label
from jaxflow.evaluate._erasure import BINS, Faithfulness, erase
from jaxflow.evaluate._masking import masked_value
from jaxflow.evaluate._metrics import METRICS
from jaxflow.evaluate._ranks import rank_correlation
from jaxflow.evaluate._sanity import SanityCheck, layer_groups, randomise, sanity_check

__all__ = [
    "BINS",
    "METRICS",
    "Bootstrap",
    "Comparison",
    "CutEffect",
    "Decision",
    "ErasureCurves",
    "Faithfulness",
    "SanityCheck",
    "compare",
    "cut_effect",
    "erase",
    "erasure_curves",
    "knock_out",
    "layer_groups",
    "masked_value",
    "next_token",
    "predicted_label",
    "randomise",
    "rank_correlation",
    "sanity_check",
]
