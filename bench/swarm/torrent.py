"""One BitTorrent client of a fleet, on libtorrent. Takes its orders as JSON in the first argument and a line on standard input to begin;
prints `ready`, then `done` when it has the file and has checked it; goes on uploading until its standard input ends."""
import json
import sys

import libtorrent as lt

# What someone would set who has the network to himself: no limits, nobody choked, TCP only, no look-ups, no waits between two attempts.
SETTINGS = {
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_incoming_utp": False, "enable_outgoing_utp": False,
    "mixed_mode_algorithm": int(lt.bandwidth_mixed_algo_t.prefer_tcp),
    "in_enc_policy": int(lt.enc_policy.disabled), "out_enc_policy": int(lt.enc_policy.disabled),
    "upload_rate_limit": 0, "download_rate_limit": 0,
    "unchoke_slots_limit": -1, "choking_algorithm": int(lt.choking_algorithm_t.fixed_slots_choker),
    "seed_choking_algorithm": int(lt.seed_choking_algorithm_t.round_robin),
    "connections_limit": 200, "connection_speed": 200, "torrent_connect_boost": 100, "smooth_connects": False,
    "peer_turnover": 0, "close_redundant_connections": False, "min_reconnect_time": 1,
    "tick_interval": 100, "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
}


def make(orders):
    files = lt.file_storage()
    lt.add_files(files, orders["file"])
    torrent = lt.create_torrent(files, orders["pieceBytes"], lt.create_torrent.v1_only)
    lt.set_piece_hashes(torrent, orders["directory"])
    with open(orders["torrent"], "wb") as out:
        out.write(lt.bencode(torrent.generate()))


def run(orders):
    session = lt.session({**SETTINGS, "listen_interfaces": "%s:%d" % (orders["address"], orders["port"])})
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(orders["torrent"])
    params.save_path = orders["directory"]
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if orders["seed"]:
        params.flags |= lt.torrent_flags.seed_mode
        if orders["superSeeding"]:
            params.flags |= lt.torrent_flags.super_seeding
        torrent = session.add_torrent(params)
        say("ready")
    else:
        say("ready")
        sys.stdin.readline()
        torrent = session.add_torrent(params)
        for address in orders["peers"]:
            torrent.connect_peer((address, orders["port"]))
        while not torrent.status().is_seeding:
            session.wait_for_alert(20)
            for alert in session.pop_alerts():
                if "error" in type(alert).__name__:
                    raise RuntimeError(alert.message())
        say("done")
    sys.stdin.read()


def say(word):
    print(word, flush=True)


orders = json.loads(sys.argv[1])
make(orders) if orders["make"] else run(orders)
