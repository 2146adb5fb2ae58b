locals {
  documents = [for d in split("\n---\n", "\n${fileexists(var.manifest_file) ? file(var.manifest_file) : ""}\n") : yamldecode(d) if length(regexall("(?m)^kind:", d)) > 0]
  objects = {
    for o in local.documents : join("/", compact([o.kind, try(o.metadata.namespace, ""), o.metadata.name])) => merge(o, {
      metadata = merge(o.metadata, { labels = merge(try(o.metadata.labels, {}), var.labels) })
    })
  }
  definitions = [for name, o in local.objects : name if o.kind == "CustomResourceDefinition"]
  namespaces  = [for name, o in local.objects : name if o.kind == "Namespace"]
}

# Kept when the stack is destroyed: with a definition go all objects of its kind,
# which are databases and their volumes.
resource "kubectl_manifest" "definition" {
  for_each = toset(local.definitions)

  yaml_body         = yamlencode(local.objects[each.key])
  apply_only        = true
  server_side_apply = true
  force_conflicts   = true
}

# Kept for the same reason.
resource "kubectl_manifest" "namespace" {
  for_each = toset(local.namespaces)

  yaml_body         = yamlencode(local.objects[each.key])
  apply_only        = true
  server_side_apply = true
}

resource "kubectl_manifest" "this" {
  for_each = toset([for name in keys(local.objects) : name if !contains(concat(local.definitions, local.namespaces), name)])

  yaml_body         = yamlencode(local.objects[each.key])
  server_side_apply = true
  wait_for_rollout  = var.wait

  depends_on = [kubectl_manifest.definition, kubectl_manifest.namespace]
}
