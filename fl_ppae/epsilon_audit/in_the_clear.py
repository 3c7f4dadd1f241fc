"""The same training in the clear, for audits of a run whose updates are masked.

What a hospital masks is a release of its own. The server sees less of it, so what an audit finds there bounds
what it could find behind the masks. The sum of joint noise is made of it, see `joint_sum`.
"""

from __future__ import annotations

from fl_ppae.config import RunConfig
from fl_ppae.epsilon_audit.joint_sum import JointSum
from fl_ppae.privacy.plan import HospitalPlan, plan_hospital, planned_terms
from fl_ppae.protection import JOINT, SECAGG

_LARGEST_TARGET = 1e3


def joint_sum(config: RunConfig, plan: HospitalPlan) -> JointSum:
    """The sum that a run with joint noise claims an epsilon for, given a hospital's plan in that run."""
    return JointSum(plan, planned_terms(plan, config, run="audit"))


def in_the_clear(config: RunConfig, plan: HospitalPlan) -> tuple[RunConfig, HospitalPlan]:
    """The configuration and the plan of a hospital that masks nothing, with the noise that it adds itself.

    With joint noise that is its share of it; the claim is then the epsilon if all other hospitals collude.

    Raises:
        UserError: that share is below the smallest noise multiplier of a run.
    """
    if config.protection != SECAGG:
        return config, plan
    changes: dict[str, object] = {"protection": "none", "honest-hospitals": 0, "min-hospitals": 0}
    if config.noise == JOINT:
        share = planned_terms(plan, config, run="audit").own_noise_multiplier
        changes |= {"noise": "own", "noise-multiplier": share, "target-epsilon": _LARGEST_TARGET}
    clear = RunConfig.from_flat({**config.to_flat(), **changes})
    return clear, plan_hospital(plan.name, plan.records, clear)
