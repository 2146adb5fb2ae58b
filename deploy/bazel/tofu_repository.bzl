"""The repository @tofu, from a directory on the machine with tofu and mirror/."""

def _impl(ctx):
    root = ctx.os.environ.get("TOFU_DIR", "")
    if not root:
        fail("TOFU_DIR must name a directory with the program tofu and the providers' file system mirror as mirror/: deploy/tofu/tools DIR makes one")
    ctx.symlink(root + "/tofu", "tofu")
    ctx.symlink(root + "/mirror", "mirror_files")
    ctx.file("BUILD.bazel", """
exports_files(["tofu"])
filegroup(name = "mirror", srcs = glob(["mirror_files/**"]), visibility = ["//visibility:public"])
""")

tofu_repository = repository_rule(implementation = _impl, environ = ["TOFU_DIR"], local = True)

