# The NixOS module: services.narvik.
{ config, lib, pkgs, ... }:

let
  cfg = config.services.narvik;
  toml = pkgs.formats.toml { };
  settings = cfg.settings
    // lib.optionalAttrs (cfg.listen != [ ]) { inherit (cfg) listen; }
    // lib.optionalAttrs (cfg.bootstrap != [ ]) { inherit (cfg) bootstrap; };
  # Those of `listen`, or of `settings` where somebody has them there.
  addresses = settings.listen or [ ];
  # The port of /ip4/0.0.0.0/tcp/4650.
  portOf = address: lib.toInt (lib.elemAt (lib.splitString "/" address) 4);
in
{
  options.services.narvik = {
    enable = lib.mkEnableOption "Narvik, which moves VM images between the hosts of a fleet";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The package to run.";
    };

    listen = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "/ip4/0.0.0.0/tcp/4650" ];
      description = "Addresses to listen on; with none, loopback only. Beyond loopback a fleet key is needed.";
    };

    bootstrap = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "/dns4/host-a/tcp/4650/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf" ];
      description = "Peers that are dialled until they answer.";
    };

    fleetKeyFile = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "/var/keys/fleet.key";
      description = "File with the fleet's key, outside of the Nix store; the service gets it as a credential.";
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the ports of `listen`, or of `settings.listen`, are opened in the firewall.";
    };

    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = { metrics.port = 4651; trust.keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ]; };
      description = "Keys of the configuration file, as docs/CONFIG.md has them.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.fleetKeyFile == null || !lib.hasPrefix builtins.storeDir cfg.fleetKeyFile;
        message = "services.narvik.fleetKeyFile must not be in the Nix store, which everybody can read";
      }
    ];

    environment.systemPackages = [ cfg.package ];
    environment.etc."narvik/narvik.toml".source = toml.generate "narvik.toml" settings;

    users.users.narvik = { isSystemUser = true; group = "narvik"; home = "/var/lib/narvik"; };
    users.groups.narvik = { };

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall (map portOf addresses);

    systemd.services.narvikd = {
      description = "Narvik, moves VM images between the hosts of a fleet";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      wantedBy = [ "multi-user.target" ];
      path = [ config.nix.package ];
      reloadTriggers = [ config.environment.etc."narvik/narvik.toml".source ];
      environment.NODE_COMPILE_CACHE = "%C/narvik";
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "all";
        ExecStart = "${lib.getExe cfg.package} daemon";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        WatchdogSec = "60";
        Restart = "on-failure";
        RestartSec = "2";
        TimeoutStartSec = "60";
        TimeoutStopSec = "30";
        KillMode = "mixed";
        User = "narvik";
        Group = "narvik";
        StateDirectory = "narvik";
        StateDirectoryMode = "0755";
        RuntimeDirectory = "narvik";
        LoadCredential = lib.mkIf (cfg.fleetKeyFile != null) [ "narvik.fleet.key:${cfg.fleetKeyFile}" ];
        RuntimeDirectoryMode = "0750";
        CacheDirectory = "narvik";
        LimitNOFILE = "65536";
        ProtectSystem = "strict";
        ProtectHome = "read-only";
        PrivateTmp = "yes";
        PrivateDevices = "yes";
        PrivateUsers = "yes";
        PrivateMounts = "yes";
        ProtectClock = "yes";
        ProtectControlGroups = "yes";
        ProtectHostname = "yes";
        ProtectKernelLogs = "yes";
        ProtectKernelModules = "yes";
        ProtectKernelTunables = "yes";
        ProtectProc = "invisible";
        ProcSubset = "pid";
        NoNewPrivileges = "yes";
        CapabilityBoundingSet = "";
        AmbientCapabilities = "";
        LockPersonality = "yes";
        RemoveIPC = "yes";
        RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX AF_NETLINK";
        RestrictNamespaces = "yes";
        RestrictRealtime = "yes";
        RestrictSUIDSGID = "yes";
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
        SystemCallErrorNumber = "EPERM";
        MemoryDenyWriteExecute = "no";
        UMask = "0022";
      };
    };
  };
}
