// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/receive.hpp"

#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "agent/cli/endpoint.hpp"
#include "agent/device/char_device.hpp"
#include "agent/machine/description.hpp"
#include "agent/machine/disks.hpp"
#include "agent/peer/receiver.hpp"

namespace smig {

namespace {

void log_line(const std::string& text) {
    std::fprintf(stderr, "selfmigrate receive: %s\n", text.c_str());
    std::fflush(stderr);
}

std::vector<std::string> check_source(const smig_info& info, const std::string& source_json) {
    auto own = describe_machine(info);
    if (!own) return {own.error().text};
    std::vector<std::string> reasons = compare_machines(source_json, own.value());
    auto disks = check_disks(source_json);
    if (!disks) {
        reasons.push_back(disks.error().text);
    } else {
        for (std::string& reason : disks.value()) reasons.push_back(std::move(reason));
    }
    return reasons;
}

Result<ReceiverOptions> options_from(const std::string& listen, const std::vector<std::string>& holds) {
    ReceiverOptions options;
    auto where = parse_host_port(listen, SMIG_WIRE_DEFAULT_PORT);
    if (!where) return where.error();
    const auto address = parse_ip(where.value().host);
    if (!address)
        return Error{Remedy::refused, "--listen " + listen + ": give a numeric address of this machine"};
    options.listen_text = listen;
    options.listen.length = to_sockaddr(*address, where.value().port, options.listen.storage);
    std::vector<Hold> parsed;
    for (const std::string& text : holds) {
        auto hold = parse_hold(text);
        if (!hold) return hold.error();
        parsed.push_back(hold.value());
    }
    options.holds = Holds(std::move(parsed));
    options.open_device = open_char_device;
    options.check = check_source;
    options.handover = describe_handover;
    options.log = log_line;
    return options;
}

}  // namespace

int receive_command(int argc, const char* const* argv) {
    CLI::App app("Waits for a source and becomes its guest. Meant for the landing environment.",
                 "selfmigrate receive");
    std::string listen;
    std::vector<std::string> holds;
    std::uint64_t reserve_mib = 0;
    bool insecure = false;
    app.add_option("--listen", listen, "address (and port) to listen on, and no other")
        ->required()
        ->type_name("ADDR[:PORT]");
    app.add_option("--reserve", reserve_mib,
                   "memory to keep for the landing environment; 0: the module's default")
        ->type_name("MIB");
    app.add_flag("--insecure", insecure, "agree that nothing is authenticated or encrypted");
    app.add_option("--hold", holds, "test aid: wait in a phase")->type_name("PHASE:MS");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    if (!insecure) {
        log_line(
            "refused: nothing is authenticated or encrypted yet; say --insecure if the network is trusted");
        return 1;
    }
    auto options = options_from(listen, holds);
    if (!options) {
        log_line(options.error().text);
        return 2;
    }
    ::signal(SIGPIPE, SIG_IGN);
    options.value().reserve_pages = reserve_mib * 256;
    const auto ended = run_receiver(options.value());
    log_line(ended.error().text);
    return 1;
}

}  // namespace smig
