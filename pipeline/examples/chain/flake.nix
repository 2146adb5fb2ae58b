{
  description = "Ten steps in a chain and eight leaves, built with nothing but /bin/sh";

  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: builtins.listToAttrs (map (system: { name = system; value = f system; }) systems);

      run = system: name: env: script: derivation ({
        inherit system name;
        builder = "/bin/sh";
        args = [ "-e" "-c" script ];
      } // env);

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

      # About a second each, and each after the one before.
      step = system: n:
        run system "chain-step-${toString n}"
          {
            inherit n;
            previous = if n > 1 then step system (n - 1) else "";
          }
          (produce 98304);

      leaf = system: n:
        run system "chain-leaf-${toString n}" { n = 100 + n; previous = ""; } (produce 16384);
    in
    {
      packages = each (system: {
        default = run system "chain"
          {
            last = step system 10;
            leaves = map (leaf system) [ 1 2 3 4 5 6 7 8 ];
          }
          "printf '%s\\n' $last $leaves > $out";
      });
    };
}
