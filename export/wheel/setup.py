"""Compiles the model into a library that the package loads with ctypes."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class Library(build_ext):
    """A library without Python in it: no Python version in its name, and no function that makes a module."""

    def get_ext_filename(self, name):
        """The same name on every system; ctypes loads any."""
        return name.replace(".", "/") + ".so"

    def get_export_symbols(self, extension):
        """Those of the extension alone."""
        return extension.export_symbols


class Wheel(bdist_wheel):
    """A wheel for every Python 3 of this platform."""

    def get_tag(self):
        """Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


Path("build").mkdir(exist_ok=True)

setup(
    options={"build_ext": {"force": True}, "egg_info": {"egg_base": "build"}},
    ext_modules=[
        Extension(
            "@@name.model",
            ["@@name.c"],
            depends=["@@name.h"],
            export_symbols=["@@{name}_invoke"],
            extra_compile_args=["-std=c99", "-O3", "-g0"],
        )
    ],
    cmdclass={"build_ext": Library, "bdist_wheel": Wheel},
)
