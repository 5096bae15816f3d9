"""What lmms-eval finds under the entry point `lmms_eval.models`: one manifest per name of a method.

Rule: nothing heavy is imported here. The harness loads every plugin's entry point in one `try`, at import, for every
command; a slow or failing plugin would hurt all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmms_ca_plugin.harness.tasks import install as install_tasks
from lmms_ca_plugin.methods import method_entries, model_ids

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifests() -> list[ModelManifest]:
    """Lists the entries: `llava_<name>`, each with the alias `mllm_<name>`, in a chat and a simple form."""
    from lmms_eval.models.registry_v2 import ModelManifest  # the harness is importing itself while it calls this

    install_tasks()

    entries = "lmms_ca_plugin.harness.entries"
    return [
        ModelManifest(
            model_id=model_id,
            chat_class_path=f"{entries}.Chat_{entry.name}",
            simple_class_path=f"{entries}.Simple_{entry.name}",
            aliases=(alias,),
        )
        for entry in method_entries()
        for model_id, alias in [model_ids(entry.name)]
    ]
