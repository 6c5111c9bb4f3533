// SPDX-License-Identifier: Apache-2.0
// Parses, forks the detached agent, and shows what it says.  This process is frozen and moved like any other;
// what it prints at last it prints on the target.
#include "agent/cli/to.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/base/clock.hpp"
#include "agent/base/control_group.hpp"
#include "agent/cli/clone_entry.hpp"
#include "agent/cli/endpoint.hpp"
#include "agent/cli/progress_view.hpp"
#include "agent/device/char_device.hpp"
#include "agent/machine/description.hpp"
#include "agent/machine/disks.hpp"
#include "agent/policy/pacing.hpp"
#include "agent/source/agent_process.hpp"
#include "agent/source/order_socket.hpp"

namespace smig {

namespace {

volatile sig_atomic_t interrupted = 0;

void on_interrupt(int) {
    interrupted = 1;
}

struct Arguments {
    std::string target;
    std::string mode = traits_of(TransferOptions{}.mode).name;
    std::string speculate;
    std::string bandwidth = "0";
    std::string compress = "auto";
    std::string detect = "page-tables";
    std::string json;
    std::vector<std::string> holds;
    NetworkOptions network;
    double alive_timeout_s = 20;
    AgentOptions options;
};

void complain(const std::string& text) {
    std::fprintf(stderr, "selfmigrate to: %s\n", text.c_str());
}

Result<SourceDescription> describe_source(const smig_info& info) {
    auto described = describe_machine(info);
    if (!described) return described.error();
    auto probed = flush_disk_probes(described.value());
    if (!probed) return probed.error();
    auto kept = std::make_shared<DiskProbes>(std::move(probed).value());
    return SourceDescription{kept->description(), kept};
}

Result<void> complete(Arguments& arguments) {
    auto where = parse_host_port(arguments.target, SMIG_WIRE_DEFAULT_PORT);
    if (!where) return where.error();
    for (const std::string& text : arguments.holds) {
        auto hold = parse_hold(text);
        if (!hold) return hold.error();
        arguments.options.holds.push_back(hold.value());
    }
    TransferOptions& transfer = arguments.options.transfer;
    const auto mode = mode_named(arguments.mode);
    if (!mode) return Error{Remedy::refused, "--mode " + arguments.mode + ": say " + mode_names()};
    transfer.mode = *mode;
    transfer.hash = arguments.detect == "hash";
    if (!traits_of(*mode).passes && (transfer.dry_run || transfer.verify || transfer.hash))
        return Error{Remedy::refused, "--dry-run, --verify and --detect are about passes: --mode precopy"};
    if (!arguments.speculate.empty()) {
        if (!traits_of(*mode).owes)
            return Error{Remedy::refused,
                         "--speculate: mode " + arguments.mode + " owes no page; --mode hybrid or auto"};
        auto rules = parse_speculation(arguments.speculate);
        if (!rules) return rules.error().within("--speculate");
        transfer.speculation = rules.value();
    }
    if (transfer.dry_run && transfer.hash)
        return Error{Remedy::refused,
                     "--dry-run needs page tables to tell what is written: not with --detect hash"};
    auto bandwidth = parse_rate(arguments.bandwidth);
    if (!bandwidth) return bandwidth.error().within("--bandwidth");
    transfer.bandwidth_bytes_per_s = bandwidth.value();
    const auto compress = compress_named(arguments.compress);
    if (!compress)
        return Error{Remedy::refused, "--compress " + arguments.compress + ": say auto, on or off"};
    transfer.compress = *compress;
    auto address = resolve_host(where.value().host);
    if (!address) return address.error();
    arguments.options.target = arguments.target;
    arguments.options.plan = [network = arguments.network, peer = address.value()] {
        return plan_network(network, peer);
    };
    arguments.options.describe = describe_source;
    arguments.options.port = where.value().port;
    arguments.options.limits.alive = static_cast<std::int64_t>(arguments.alive_timeout_s * 1000);
    arguments.options.open_device = open_char_device;
    arguments.options.clone_main = clone_main;
    arguments.options.order_socket = kOrderSocketPath;
    arguments.options.last_move = kLastMovePath;
    return {};
}

// Everything of the terminal and the caller is let go: their death must not reach a move.
[[noreturn]] void become_agent(AgentOptions& options, Fd client) {
    ::setsid();
    leave_control_group();
    ::prctl(PR_SET_NAME, "smig-agent");
    for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) ::signal(number, SIG_IGN);
    ::signal(SIGCHLD, SIG_DFL);
    if (::chdir("/") != 0) ::_exit(1);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    const int kept = ::fcntl(client.release(), F_DUPFD_CLOEXEC, 10);
    if (null < 0 || kept < 0) ::_exit(1);
    for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
    ::syscall(SYS_close_range, 3u, static_cast<unsigned>(kept) - 1, 0);
    ::syscall(SYS_close_range, static_cast<unsigned>(kept) + 1, ~0u, 0);
    // The kernel must not choose these processes when memory is short.  Without the right to say so it may.
    if (const Fd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)); score) [[maybe_unused]]
        const ssize_t written = ::write(score.get(), "-1000", 5);
    MachinePower power;
    options.power = &power;
    ::_exit(run_agent(options, Fd(kept)));
}

class Client {
public:
    Client(Fd agent, std::string json_path)
        : agent_(std::move(agent)), json_path_(std::move(json_path)), view_(::isatty(STDERR_FILENO) != 0) {}

    int run() {
        for (;;) {
            if (interrupted == 1) {
                interrupted = 2;
                complain("cancelling; once the guest is stopped it is too late");
                const std::string line = "{\"cancel\":true}\n";
                if (::send(agent_.get(), line.data(), line.size(), MSG_NOSIGNAL) < 0) break;
            }
            char buffer[4096];
            pollfd entry{agent_.get(), POLLIN, 0};
            // A signal between the check and the poll is noticed at the next turn.
            if (::poll(&entry, 1, 500) <= 0) continue;
            const ssize_t got = ::read(agent_.get(), buffer, sizeof(buffer));
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) break;
            pending_.append(buffer, static_cast<std::size_t>(got));
            for (std::size_t end = pending_.find('\n'); end != std::string::npos; end = pending_.find('\n')) {
                const auto message = nlohmann::json::parse(pending_.substr(0, end), nullptr, false);
                pending_.erase(0, end + 1);
                if (message.is_object() && message.contains("progress_line")) {
                    view_.show(message["progress_line"]);
                    continue;
                }
                view_.clear();
                if (message.is_object() && message.contains("verdict")) return finish(message);
                if (message.is_object() && message.contains("progress"))
                    show(message["progress"].get<std::string>());
            }
        }
        complain("the agent is gone; what it had begun is undone, unless the guest had been given away");
        return 1;
    }

private:
    void show(const std::string& text) const { std::fprintf(stderr, "%s\n", text.c_str()); }

    int finish(const nlohmann::json& message) const {
        const std::string text = message["text"].get<std::string>();
        const std::string json = message["json"].get<std::string>();
        const std::string verdict = message["verdict"].get<std::string>();
        const bool done = verdict == "moved" || verdict == "dry-run";
        // Standard output carries the JSON alone when it is asked for there.
        std::fprintf(done && json_path_ != "-" ? stdout : stderr, "%s", text.c_str());
        if (json_path_ == "-") {
            std::printf("%s\n", json.c_str());
        } else if (!json_path_.empty()) {
            std::ofstream file(json_path_);
            file << json << "\n";
            file.close();
            if (!file) complain(json_path_ + ": could not be written");
        }
        std::fflush(stdout);
        return done ? 0 : 1;
    }

    Fd agent_;
    std::string json_path_;
    ProgressView view_;
    std::string pending_;
};

int start(Arguments& arguments) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        complain(errno_error(Remedy::fatal, "socketpair").text);
        return 1;
    }
    Fd own(ends[0]);
    Fd agents(ends[1]);
    const pid_t agent = ::fork();
    if (agent < 0) {
        complain(errno_error(Remedy::fatal, "fork").text);
        return 1;
    }
    if (agent == 0) {
        own.reset();
        become_agent(arguments.options, std::move(agents));
    }
    agents.reset();
    struct sigaction action{};
    action.sa_handler = on_interrupt;
    ::sigaction(SIGINT, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    const int code = Client(std::move(own), arguments.json).run();
    ::waitpid(agent, nullptr, 0);
    return code;
}

}  // namespace

int to_command(int argc, const char* const* argv) {
    Arguments arguments;
    arguments.options.started_ns = mono_ns();
    CLI::App app("Moves this guest to the machine that waits at HOST.", "selfmigrate to");
    app.add_option("target", arguments.target, "where `selfmigrate receive` listens")
        ->required()
        ->type_name("HOST[:PORT]");
    app.add_option("--mode", arguments.mode,
                   "precopy: memory travels while the guest runs, in passes, and only the rest while it is "
                   "stopped; hybrid: one pass, then the guest goes on over there and fetches what of its "
                   "processes' memory it wrote meanwhile, with what it may want next; hybrid-ns: without "
                   "the latter; postcopy: all of the processes' memory is fetched or pushed; postcopy-i: "
                   "pushed from the latest faults outwards; auto: what the measurements suggest; stop-copy: "
                   "the guest is stopped while all of it travels")
        ->check(
            CLI::IsMember({"precopy", "stop-copy", "hybrid", "hybrid-ns", "postcopy", "postcopy-i", "auto"}))
        ->capture_default_str();
    app.add_option("--speculate", arguments.speculate,
                   "which pages go along with one that is fetched: none, all, or some of file-single, "
                   "file-multi, anon-single, anon-multi, ppm, each with :N (how often it must have fitted)")
        ->type_name("LIST");
    app.add_flag("--explain", arguments.options.transfer.explain, "say why --mode auto did what it did");
    TransferOptions& transfer = arguments.options.transfer;
    app.add_option("--max-passes", transfer.passes.max_passes,
                   "stop the guest after so many passes at the latest")
        ->type_name("N")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_option("--downtime-limit", transfer.passes.downtime_limit_ms,
                   "stop the guest when what is left can be sent within this time")
        ->type_name("MS")
        ->check(CLI::Range(1, 3'600'000))
        ->capture_default_str();
    app.add_option("--bandwidth", arguments.bandwidth,
                   "send no faster than this while the guest runs, for example 500mbit or 20MB; 0: no cap")
        ->type_name("RATE");
    app.add_option(
           "--nice", transfer.nice,
           "the priority of what sends while the guest runs: the lower, the sooner the move is over, and "
           "the less processor time it leaves to the guest until then")
        ->type_name("N")
        ->check(CLI::Range(-20, 19))
        ->capture_default_str();
    app.add_option("--compress", arguments.compress, "pack pages with LZ4: auto (when it is faster), on, off")
        ->check(CLI::IsMember({"auto", "on", "off"}))
        ->capture_default_str();
    app.add_option(
           "--detect", arguments.detect,
           "what tells which pages have changed: page-tables (and hooks), or hash, which trusts none of "
           "them, reads all memory in every pass and hashes it all in the stop")
        ->check(CLI::IsMember({"page-tables", "hash"}))
        ->capture_default_str();
    app.add_flag(
        "--drop-cache", transfer.drop_cache,
        "first give clean page cache back, so that it need not be sent; files are read from the disk again");
    app.add_flag(
        "--dry-run", transfer.dry_run,
        "send for a few seconds, watch what the guest writes, say what a move would take; move nothing");
    app.add_flag(
        "--verify", transfer.verify,
        "slow check: hash in the stop also what is believed to be unchanged, and report what was missed");
    app.add_option("--stay", arguments.network.stay,
                   "address of this machine that does not move, used for the move")
        ->type_name("ADDR");
    app.add_option("--follow", arguments.network.follow, "address that goes with the guest; may repeat")
        ->type_name("ADDR");
    app.add_option("--service-if", arguments.network.service_interfaces,
                   "interface whose addresses follow; may repeat")
        ->type_name("IF");
    app.add_option("--json", arguments.json, "write the report as JSON; - is standard output")
        ->type_name("FILE");
    app.add_option("--alive-timeout", arguments.alive_timeout_s,
                   "how long to wait for the clone before the move is undone")
        ->type_name("S")
        ->check(CLI::Range(1.0, 3600.0));
    app.add_flag("--keep-source", arguments.options.keep_source,
                 "do not power off afterwards: stay frozen and fenced");
    app.add_flag("--insecure", arguments.options.insecure,
                 "agree that nothing is authenticated or encrypted");
    app.add_option("--push-after", transfer.push_after_ms,
                   "test aid: for so long after the switch owed pages travel only when they are asked for")
        ->type_name("MS")
        ->check(CLI::Range(0, 4'500));
    app.add_option("--hold", arguments.holds, "test aid: wait in a phase")->type_name("PHASE:MS");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    if (!arguments.options.insecure) {
        complain(
            "refused: nothing is authenticated or encrypted yet; say --insecure if the network is trusted");
        return 1;
    }
    if (auto completed = complete(arguments); !completed) {
        complain(completed.error().text);
        return 2;
    }
    return start(arguments);
}

}  // namespace smig
