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
| `SanityCheck.correlations` | are scores the same without what was learned? | nearer to 0 | Adebayo et al. 2018 |
"""

from jaxflow.faithfulness.curves import ErasureCurves, erasure_curves
from jaxflow.faithfulness.erasing import BINS, Faithfulness, erase
from jaxflow.faithfulness.hiding import masked_value
from jaxflow.faithfulness.randomising import SanityCheck, layer_groups, randomise, sanity_check
from jaxflow.faithfulness.ranks import rank_correlation

__all__ = [
    "BINS",
    "ErasureCurves",
    "Faithfulness",
    "SanityCheck",
    "erase",
    "erasure_curves",
    "layer_groups",
    "masked_value",
    "randomise",
    "rank_correlation",
    "sanity_check",
]
