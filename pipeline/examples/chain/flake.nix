{
  description = "Ten steps in a chain and eight leaves, built with nothing but /bin/sh";

  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: builtins.listToAttrs (map (system: { name = system; value = f system; }) systems);

      # PATH serves builds without a sandbox; inside one, /bin/sh is a static
      # busybox that brings these commands itself.
      run = system: name: env: script: derivation ({
        inherit system name;
        builder = "/bin/sh";
        args = [ "-e" "-c" script ];
        PATH = "/bin:/usr/bin";
      } // env);

      # Two kinds of output, alike from run to run: a log that compresses well
      # and noise that does not compress at all.
      produce = ''
        mkdir $out
        awk -v n=$n 'BEGIN {
          for (i = 0; i < 30000; i++)
            printf "step %d: line %d of a log that says much the same in every line\n", n, i
        }' > $out/log
        awk -v n=$n 'BEGIN {
          x = n
          for (i = 0; i < 200000; i++) { x = (x * 69069 + 12345) % 4294967296; printf "%010d", x }
        }' | gzip -n > $out/noise.gz
      '';

      step = system: n:
        run system "chain-step-${toString n}"
          ({ inherit n; } // (if n > 1 then { previous = step system (n - 1); } else { }))
          ''
            ${produce}
            if [ -n "$previous" ]; then ln -s $previous $out/previous; fi
            sleep 0.7
          '';

      leaf = system: n:
        run system "chain-leaf-${toString n}" { n = 100 + n; } produce;
    in
    {
      packages = each (system: {
        default = run system "chain"
          {
            last = step system 10;
            leaves = map (leaf system) [ 1 2 3 4 5 6 7 8 ];
          }
          ''
            mkdir $out
            ln -s $last $out/last
            i=0
            for l in $leaves; do i=$((i + 1)); ln -s $l $out/leaf-$i; done
          '';
      });
    };
}
