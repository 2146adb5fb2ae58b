{
  description = "A chain of ten steps that fails at the seventh until the file beside this one says yes";

  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: builtins.listToAttrs (map (system: { name = system; value = f system; }) systems);

      mended = builtins.substring 0 3 (builtins.readFile ./mended) == "yes";

      # Shell builtins only: a sandbox may hold no other command. Two kinds of
      # output, the same from run to run: 2 MiB of a log that compresses well
      # and noise that does not compress at all, 3 bytes a round.
      produce = rounds: ''
        line="step $n says much the same in every line of its log, as builds do
        "
        text=$line i=0
        while [ $i -lt 14 ]; do text=$text$text i=$((i + 1)); done
        x=$n i=0 noise=
        {
          printf '%s%s%s\n' "$previous" "$text" "$text"
          while [ $i -lt ${toString rounds} ]; do
            i=$((i + 1)) x=$(((x * 69069 + 12345) & 4294967295))
            noise="$noise\\$((x>>30))$((x>>27&7))$((x>>24&7))\\$((x>>22&3))$((x>>19&7))$((x>>16&7))\\$((x>>14&3))$((x>>11&7))$((x>>8&7))"
            if [ $((i & 63)) = 0 ]; then printf "$noise"; noise=; fi
          done
        } > $out
      '';

      fail = ''
        echo "step 7 fails: write yes into the file mended beside flake.nix" >&2
        exit 1
      '';

      step = system: n: derivation {
        inherit system n;
        name = "broken-step-${toString n}";
        builder = "/bin/sh";
        previous = if n > 1 then step system (n - 1) else "";
        args = [ "-e" "-c" (if n == 7 && !mended then fail else produce 98304) ];
      };
    in
    {
      packages = each (system: { default = step system 10; });
    };
}
