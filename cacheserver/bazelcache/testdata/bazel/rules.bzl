"""A rule whose output is a directory, which Bazel caches as a Tree, and a test."""

def _tree_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    ctx.actions.run_shell(
        inputs = [ctx.file.src],
        outputs = [out],
        arguments = [ctx.file.src.path, out.path],
        command = "mkdir -p $2/a/b && cp $1 $2/one && cp $1 $2/a/two && seq 200000 > $2/a/b/three && : > $2/a/empty",
    )
    return [DefaultInfo(files = depset([out]))]

tree = rule(
    implementation = _tree_impl,
    attrs = {"src": attr.label(allow_single_file = True)},
)

def _check_impl(ctx):
    script = ctx.actions.declare_file(ctx.label.name + ".sh")
    ctx.actions.write(script, "#!/bin/sh\ngrep -q . %s\n" % ctx.file.src.short_path, is_executable = True)
    return [DefaultInfo(executable = script, runfiles = ctx.runfiles(files = [ctx.file.src]))]

check_test = rule(
    implementation = _check_impl,
    attrs = {"src": attr.label(allow_single_file = True)},
    test = True,
)
