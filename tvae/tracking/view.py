"""The saved view of the runs that a tvae experiment has in the UI: which runs, which columns, which charts.

It is in the menu `Views`, and the experiment's description leads to it. MLflow opens none by itself: what an address
without a view shows is kept in the visitor's browser, so nothing that is stored here can change it.

By itself the UI shows no metric of a run; and where one asks for `hierarchy`, it shows that of the last epoch, though
the model has the weights of the best. The view shows what the model is worth, and the curves that one reads first.
"""

import json
import time
from typing import Any

from mlflow import MlflowClient

__all__ = ["VIEW", "save_view"]

VIEW = "tvae"
# MLflow 3.16 and later keep a saved view as a tag of the experiment: a name, and the state of the page.
_TAG = f"mlflow.sharedViewState.{VIEW}"
_COLUMNS = (
    *(f"params.`{name}`" for name in ("preset", "curvature", "seed")),
    *(f"metrics.`{name}`" for name in ("best_coverage", "best_hierarchy", "best_level_gap", "tree_precision")),
    *(f"metrics.`{name}`" for name in ("best_richness", "best_q")),
    "tags.`verified`",
    "tags.`registered`",
)
# Stages of runs that make no model: there is nothing to compare.
_HOUSEKEEPING = ("embed", "report", "resume", "rollback", "verify")
_CURVES = ("hierarchy", "coverage", "level_gap", "richness", "distance_fidelity", "loss")
_SECTION = "tvae-curves"


def save_view(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment the view, unless it has it already: a user may have changed it."""
    if _TAG in client.get_experiment(experiment_id).tags:
        return
    now = int(time.time() * 1000)
    view = {
        "name": "What the models are worth",
        "createdAt": now,
        "updatedAt": now,
        "state": json.dumps(_state()),
    }
    client.set_experiment_tag(experiment_id, _TAG, json.dumps(view))


def _state() -> dict[str, Any]:
    columns = list(_COLUMNS)
    section = {"uuid": _SECTION, "name": "By epoch", "display": True, "isReordered": True}
    return {
        "searchFilter": " and ".join(f"tags.stage != '{stage}'" for stage in _HOUSEKEEPING),
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {},
        "runsExpanded": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "groupBy": None,
        "isAccordionReordered": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False}],
        "compareRunCharts": [_curve(metric) for metric in _CURVES],
    }


def _curve(metric: str) -> dict[str, Any]:
    return {
        "uuid": f"{_SECTION}-{metric}",
        "type": "LINE",
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 10,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "selectedXAxisMetricKey": "",
        "yAxisExpressions": [],
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": True,
        "useGlobalXaxisKey": False,
        "ignoreOutliers": False,
    }
