{
  description = "A chain of ten steps that fails at the seventh until the file beside this one says yes";

  outputs = { self }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: builtins.listToAttrs (map (system: { name = system; value = f system; }) systems);

      mended = builtins.substring 0 3 (builtins.readFile ./mended) == "yes";

      step = system: n: derivation ({
        inherit system n;
        name = "broken-step-${toString n}";
        builder = "/bin/sh";
        PATH = "/bin:/usr/bin";
        args = [
          "-e"
          "-c"
          ''
            ${if n == 7 && !mended then ''
              echo "step 7 fails: write yes into the file mended beside flake.nix" >&2
              exit 1
            '' else ""}
            mkdir $out
            awk -v n=$n 'BEGIN {
              for (i = 0; i < 30000; i++)
                printf "step %d: line %d of a log that says much the same in every line\n", n, i
            }' > $out/log
            awk -v n=$n 'BEGIN {
              x = n
              for (i = 0; i < 200000; i++) { x = (x * 69069 + 12345) % 4294967296; printf "%010d", x }
            }' | gzip -n > $out/noise.gz
            if [ -n "$previous" ]; then ln -s $previous $out/previous; fi
            sleep 0.7
          ''
        ];
      } // (if n > 1 then { previous = step system (n - 1); } else { }));
    in
    {
      packages = each (system: { default = step system 10; });
    };
}
