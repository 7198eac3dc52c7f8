"""Build a wheel with the kernels of one processor family; all else is in pyproject.toml.

On Linux a wheel has a shared object for each target of its platform, by `scripts.build_kernels`, and works with any
Python and any C library. On other systems it has none: there the extra "jit" compiles the kernels. To build a wheel
for another processor family: --config-settings=--build-option=--plat-name=linux_aarch64.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FOLDER = "gte_np/kernels/runtime/prebuilt"
MACHINES = {"linux-x86_64": "x86_64", "linux-aarch64": "aarch64"}


def machine_of(distribution: Distribution) -> str | None:
    """The processor family that a wheel is for, where there are kernels for its platform."""
    platform = distribution.get_command_obj("bdist_wheel").plat_name or ""
    return MACHINES.get(platform.replace("linux_", "linux-"))


class PlatformDistribution(Distribution):
    """One whose files depend on the platform, if there are kernels for it."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel is for one platform."""
        return machine_of(self) is not None


class BuildWithKernels(build_py):
    """Build the kernels beside the modules; not for an editable install, whose source may change."""

    def run(self) -> None:
        """Copy the modules, then compile."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # it may be of another platform, or of older modules
        super().run()
        machine = machine_of(self.distribution)
        if machine is not None and not self.editable_mode:
            sys.path.insert(0, str(ROOT))
            from gte_np.kernels.targets import TARGETS

            names = [target.name for target in TARGETS if target.machine == machine]
            out = Path(self.build_lib).resolve() / FOLDER
            command = [sys.executable, "-m", "scripts.build_kernels", "--out", str(out), "--target", *names]
            # PYTHONPATH stays as it is: by it pip gives a process the packages of [build-system].
            subprocess.run(command, check=True, cwd=ROOT)


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3, and for every C library of its platform."""

    def finalize_options(self) -> None:
        """The platform is known from the beginning."""
        if self.plat_name is None and sys.platform == "linux":
            self.plat_name = f"linux_{os.uname().machine}"
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        """The kernels need no library, and so no version of one."""
        machine = machine_of(self.distribution)
        if machine is None:
            return "py3", "none", "any"
        return "py3", "none", f"manylinux2014_{machine}.manylinux_2_17_{machine}.musllinux_1_1_{machine}"


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel})
