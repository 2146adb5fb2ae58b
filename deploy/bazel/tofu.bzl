"""Rules that check OpenTofu modules.

The program and the providers are inputs, so that a result depends on nothing of
the machine, and a remote cache answers for a module that has not changed.
"""

def _sources(ctx):
    return depset(ctx.files.srcs, transitive = [d[DefaultInfo].files for d in ctx.attr.deps])

def _tofu_validate_impl(ctx):
    marker = ctx.actions.declare_file(ctx.label.name + ".validated")
    args = ctx.actions.args()
    args.add(ctx.executable.tofu)
    args.add(ctx.attr.dir)
    args.add(marker)
    args.add(ctx.files.mirror[0] if ctx.files.mirror else "")
    args.add(ctx.attr.mirror_root)
    ctx.actions.run(
        executable = ctx.executable._runner,
        arguments = [args],
        inputs = depset(ctx.files.mirror, transitive = [_sources(ctx)]),
        tools = [ctx.executable.tofu],
        outputs = [marker],
        mnemonic = "TofuValidate",
        progress_message = "Validating %s" % ctx.attr.dir,
    )
    return [DefaultInfo(files = depset([marker]))]

_COMMON = {
    "dir": attr.string(mandatory = True, doc = "Directory of the module, from the workspace's root."),
    "srcs": attr.label_list(allow_files = True, mandatory = True, doc = "The module's files."),
    "tofu": attr.label(
        executable = True,
        cfg = "exec",
        allow_single_file = True,
        default = "@tofu//:tofu",
        doc = "OpenTofu.",
    ),
}

tofu_validate = rule(
    implementation = _tofu_validate_impl,
    doc = "Runs tofu init, offline, and tofu validate.",
    attrs = dict(
        _COMMON,
        deps = attr.label_list(allow_files = True, doc = "Files of the modules that this one calls."),
        mirror = attr.label(allow_files = True, default = "@tofu//:mirror", doc = "File system mirror of the providers."),
        mirror_root = attr.string(default = "registry.opentofu.org", doc = "First directory of the mirror."),
        _runner = attr.label(executable = True, cfg = "exec", allow_single_file = True, default = "//bazel:validate.sh"),
    ),
)

def _tofu_fmt_test_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(
        output = script,
        content = "#!/bin/sh\nTF_CLI_CONFIG_FILE=/dev/null exec \"%s\" fmt -check -diff -recursive \"%s\"\n" % (ctx.executable.tofu.short_path, ctx.attr.dir),
        is_executable = True,
    )
    return [DefaultInfo(executable = script, runfiles = ctx.runfiles([ctx.executable.tofu] + ctx.files.srcs))]

tofu_fmt_test = rule(
    implementation = _tofu_fmt_test_impl,
    doc = "Fails where tofu fmt would change a file, and shows the change.",
    test = True,
    attrs = _COMMON,
)

def tofu_modules(dir, names, deps = {}):
    """Declares NAME_validate and NAME_fmt_test for each, and all_validate and all_fmt_test.

    Args:
      dir: the directory that has the modules, from the workspace's root.
      names: the modules' directories.
      deps: for each module that calls others, labels of their files.
    """
    for name in names:
        base = name.replace("-", "_")
        native.filegroup(name = base + "_srcs", srcs = native.glob([name + "/**"], exclude = ["**/.terraform/**"]), visibility = ["//visibility:public"])
        tofu_validate(name = base + "_validate", dir = dir + "/" + name, srcs = [base + "_srcs"], deps = deps.get(name, []), tags = ["flywheel-validate"])
        tofu_fmt_test(name = base + "_fmt_test", dir = dir + "/" + name, srcs = [base + "_srcs"], tags = ["flywheel-validate"])
    native.filegroup(name = "all_validate", srcs = [n.replace("-", "_") + "_validate" for n in names])
    native.test_suite(name = "all_fmt_test", tests = [n.replace("-", "_") + "_fmt_test" for n in names])
