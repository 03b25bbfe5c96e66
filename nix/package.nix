# The program with its Node packages. `src` is this checkout with `node_modules` in it (`npm ci --ignore-scripts`): what the lockfile pins is
# what runs, on the Node of nixpkgs.
{ lib, stdenv, makeWrapper, nodejs, bash, coreutils, findutils, systemd, src ? ../. }:

let
  description = builtins.fromJSON (builtins.readFile ../package.json);
in
stdenv.mkDerivation {
  pname = "narvik";
  inherit (description) version;
  inherit src;

  nativeBuildInputs = [ makeWrapper ];
  dontConfigure = true;
  dontBuild = true;

  installPhase = ''
    runHook preInstall
    mkdir -p $out/lib/narvik $out/bin
    cp -r src bin config package.json LICENSE node_modules $out/lib/narvik/
    # The Node that npm brought is made for other systems; the script takes the one on PATH where there is none.
    rm -rf $out/lib/narvik/node_modules/.bin $out/lib/narvik/node_modules/node-linux-* $out/lib/narvik/node_modules/.cache
    patchShebangs $out/lib/narvik/bin
    makeWrapper $out/lib/narvik/bin/narvik $out/bin/narvik \
      --prefix PATH : ${lib.makeBinPath [ nodejs coreutils findutils systemd ]}
    for shell in bash zsh fish; do
      $out/bin/narvik completion $shell > completion.$shell
    done
    install -Dm644 completion.bash $out/share/bash-completion/completions/narvik
    install -Dm644 completion.zsh $out/share/zsh/site-functions/_narvik
    install -Dm644 completion.fish $out/share/fish/vendor_completions.d/narvik.fish
    runHook postInstall
  '';

  meta = {
    inherit (description) description;
    license = lib.licenses.mit;
    mainProgram = "narvik";
    platforms = lib.platforms.linux;
  };
}
