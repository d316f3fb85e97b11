"""Says which model serves and how good it was on days that it had not seen."""

from typing import Any

from services.model_registry import ModelRegistry


class ModelService:
    """What the bundle says of itself."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def info(self) -> dict[str, Any]:
        """What is loaded. Raises what the registry raises."""
        model = self._registry.serving()
        content = model.bundle.content
        return {
            "model_version": model.version,
            "snapshot": model.snapshot.snapshot_id,
            "as_of": model.as_of.isoformat(),
            "horizon_days": content.get("horizon_days"),
            "currency": model.snapshot.currency,
            "spend": content.get("spend"),
            "targets": list(model.bundle.targets),
            "customers": model.snapshot.n_customers,
            "num_features": len(model.bundle.features),
            "features": list(model.bundle.features),
            "trained_on": content.get("trained_on"),
            "members": content.get("members"),
            "serving": content.get("serving"),
            "segments": content.get("segments"),
            "libraries": content.get("libraries"),
        }

    def performance(self) -> dict[str, Any]:
        """All that the model card says of what is loaded, with the unit of its money. Raises what the registry raises."""
        model = self._registry.serving()
        return {
            "model_version": model.version,
            "as_of": model.bundle.as_of.isoformat(),
            "horizon_days": model.bundle.content.get("horizon_days"),
            "currency": model.bundle.currency,
            **self._registry.backtest(model),
        }
