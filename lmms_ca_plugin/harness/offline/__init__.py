"""The offline suite: two checkpoints and six data sets with which lmms-eval's own tasks run without a network.

    suite = write_suite("suite")
    subprocess.run([...lmms-eval..., f"pretrained={suite.llava}"], cwd=suite.folder, env=os.environ | suite.environment)

The harness's tasks name their data `lmms-lab-encoder/GQA` and so on; `datasets` prefers a folder of that name below the
current directory to the hub, so the tasks run unmodified when the current directory is the suite's folder.
"""

from lmms_ca_plugin.harness.offline.suite import Suite, write_suite

__all__ = ["Suite", "write_suite"]
