// SPDX-License-Identifier: Apache-2.0
#include "agent/source/agent_process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/base/clock.hpp"
#include "agent/base/random.hpp"
#include "agent/machine/page_cache.hpp"
#include "agent/policy/ownership.hpp"
#include "agent/report/report.hpp"
#include "agent/source/forking.hpp"
#include "agent/source/order_socket.hpp"
#include "agent/wire/async_channel.hpp"
#include "agent/wire/connect.hpp"

namespace smig {

namespace asio = boost::asio;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t kTargetPayload = SMIG_WIRE_MAX_TEXT;  // ACCEPT and REFUSE
constexpr std::int64_t kConnectForMs = 10'000;              // a landing environment may still be starting
constexpr std::int64_t kConnectOnceMs = 1'000;
constexpr int kClockSamples = 8;
constexpr std::chrono::milliseconds kProgressEvery(250);
constexpr std::size_t kOrderMost = 4096;

class Agent {
public:
    Agent(const AgentOptions& options, Fd client)
        : options_(options),
          client_(io_, asio::local::stream_protocol(), client.release()),
          shared_(make_shared_state()) {}

    int run() {
        asio::co_spawn(io_, watch_client(), asio::detached);
        asio::co_spawn(io_, tell_progress(), asio::detached);
        asio::co_spawn(
            io_,
            [this]() -> asio::awaitable<void> {
                co_await move();
                io_.stop();
            },
            asio::detached);
        io_.run();
        return moved_ ? 0 : 1;
    }

private:
    using LocalSocket = asio::local::stream_protocol::socket;

    asio::awaitable<void> watch_client() {
        std::string text;
        for (;;) {
            const auto [error, count] = co_await asio::async_read_until(
                client_, asio::dynamic_buffer(text, kOrderMost), '\n', kTuple);
            if (error) co_return;  // the client is gone; the move is not
            if (shared_) (void)obey(text.substr(0, count));
            text.erase(0, count);
        }
    }

    asio::awaitable<void> take_orders() {
        asio::local::stream_protocol::acceptor acceptor(io_, asio::local::stream_protocol(),
                                                        order_socket_->release_fd().release());
        for (;;) {
            auto [error, socket] = co_await acceptor.async_accept(kTuple);
            if (error) co_return;
            asio::co_spawn(io_, take_order(std::move(socket)), asio::detached);
        }
    }

    asio::awaitable<void> take_order(LocalSocket socket) {
        std::string text;
        const auto [error, count] =
            co_await asio::async_read_until(socket, asio::dynamic_buffer(text, kOrderMost), '\n', kTuple);
        if (error) co_return;
        // What a person gave as the target may be no UTF-8.
        const std::string answer =
            obey(text.substr(0, count)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
        (void)co_await asio::async_write(socket, asio::buffer(answer), kTuple);
    }

    // The answer.
    nlohmann::json obey(const std::string& order) {
        const auto message = nlohmann::json::parse(order, nullptr, false);
        const auto asks = [&](const char* name) {
            return message.is_object() && message.contains(name) && message[name] == true;
        };
        const auto state = static_cast<smig_session_state>(shared_->state.load());
        if (asks("cancel")) {
            // While CAPTURE is under way nobody here can ask.
            if (state > SMIG_SOURCE_STOPPING)
                return {{"error", std::string("too late to cancel (") + state_name(state) + ")"}};
            shared_->cancel_asked = true;
            // The stop process may have it by now, and sees the flag itself.
            boost::system::error_code gone;
            if (channel_) channel_->socket().cancel(gone);
            return {{"ok", true}};
        }
        if (asks("switch_now")) {
            if (options_.transfer.dry_run) return {{"error", "this is a dry run: it moves nothing"}};
            if (!traits_of(options_.transfer.mode).passes || state > SMIG_SOURCE_PASSING)
                return {{"error", "no passes are under way: the guest is stopped as soon as can be"}};
            shared_->switch_asked = true;
            return {{"ok", true}};
        }
        if (asks("status")) return numbers();
        return {{"error", "an order is status, cancel or switch_now"}};
    }

    // Where the move is.
    [[nodiscard]] nlohmann::json numbers() const {
        const PassProgress& progress = shared_->progress;
        return {{"state", state_name(static_cast<smig_session_state>(shared_->state.load()))},
                {"target", options_.target},
                {"mode", facts_.mode},
                {"elapsed_ms", (mono_ns() - options_.started_ns) / 1'000'000},
                {"pass", progress.number.load()},
                {"pages", progress.pages.load()},
                {"done_pages", progress.done_pages.load()},
                {"sent_bytes", progress.sent_bytes.load()},
                {"bytes_per_s", progress.bytes_per_s.load()},
                {"dirty_pages_per_s", progress.dirty_pages_per_s.load()},
                {"expected_stop_ms", progress.expected_stop_ms.load()},
                {"owed_left_pages", shared_->owed_left.load()}};
    }

    asio::awaitable<void> tell_progress() {
        if (!shared_) co_return;
        asio::steady_timer timer(io_);
        for (;;) {
            timer.expires_after(kProgressEvery);
            if (const auto [error] = co_await timer.async_wait(kTuple); error) co_return;
            // A client that does not read must still find room for the verdict.
            pollfd entry{client_.native_handle(), POLLOUT, 0};
            if (shared_->state == SMIG_SOURCE_PASSING && shared_->progress.number != 0 &&
                ::poll(&entry, 1, 0) > 0)
                tell({{"progress_line", numbers()}});
        }
    }

    // Best effort: a move is not less moved because a disk is full.
    void keep_report(const std::string& json) const {
        if (options_.last_move.empty() || (order_socket_ == nullptr && !options_.order_socket.empty()))
            return;
        std::error_code error;
        const std::filesystem::path path(options_.last_move);
        std::filesystem::create_directories(path.parent_path(), error);
        const std::filesystem::path fresh(options_.last_move + ".new");
        std::ofstream file(fresh);
        file << json << "\n";
        file.close();
        if (file) std::filesystem::rename(fresh, path, error);
    }

    void tell(const nlohmann::json& message) {
        const std::string line =
            message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
        // Nobody may be listening, or only slowly: neither is a reason to wait.
        if (::send(client_.native_handle(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            return;
    }
    void progress(const std::string& text) { tell({{"progress", text}}); }

    asio::awaitable<void> move() {
        MoveOutcome outcome;
        if (auto prepared = prepare(); !prepared) {
            outcome.verdict = Verdict::refused;
            put_text(outcome.reason, prepared.error().text);
        } else if (auto forked = co_await check_and_fork(outcome); forked) {
            progress(options_.transfer.dry_run                  ? "sending for a few seconds, to measure"
                     : traits_of(options_.transfer.mode).passes ? "sending memory while the guest runs"
                                                                : "stopping the guest");
            co_await await_outcome(std::move(forked), outcome);
        }
        facts_.finished_ns = mono_ns();
        moved_ = outcome.verdict == Verdict::moved;
        const std::string json = report_json(facts_, outcome);
        if (outcome.verdict != Verdict::forecast) keep_report(json);
        tell({{"verdict", verdict_name(outcome.verdict)},
              {"text", report_text(facts_, outcome)},
              {"json", json}});
    }

    // What needs no connection.
    Result<void> prepare() {
        if (!shared_) return Error{Remedy::fatal, "no memory"};
        fill_random(std::span(shared_->epoch));
        facts_.epoch = shared_->epoch;
        facts_.started_ns = options_.started_ns;
        facts_.target = options_.target;
        facts_.mode = traits_of(options_.transfer.mode).name;
        facts_.explain = options_.transfer.explain;
        if (!options_.order_socket.empty()) {
            auto listening = OrderSocket::listen(options_.order_socket);
            if (!listening) return listening.error();
            order_socket_ = std::make_unique<OrderSocket>(std::move(listening).value());
            asio::co_spawn(io_, take_orders(), asio::detached);
        }
        auto opened = options_.open_device();
        if (!opened) return opened.error();
        if (auto told = opened.value()->info(info_); !told) return told;
        facts_.kernel = info_.release;
        facts_.vcpus = info_.vcpus;
        facts_.memory_mib = info_.ram_pages / 256;
        smig_status status{};
        if (auto told = opened.value()->status(status); !told) return told;
        if (status.state != SMIG_STATE_IDLE)
            return Error{Remedy::refused, std::string("another move is under way here (module: ") +
                                              device_state_name(status.state) + ", process " +
                                              std::to_string(status.owner_pid) + ")"};
        auto planned = options_.plan();
        if (!planned) return planned.error();
        network_ = std::move(planned).value();
        for (const std::string& line : describe_plan(network_)) progress(line);
        return {};
    }

    // A valid descriptor (the pipe that will bring the outcome) when stop process and supervisor run;
    // otherwise `outcome` says why.
    asio::awaitable<Fd> check_and_fork(MoveOutcome& outcome) {
        SourceMachine machine(shared_->epoch, options_.limits);
        auto connected = co_await connect();
        if (!connected) {
            outcome.verdict = Verdict::refused;
            put_text(outcome.reason, connected.error().text);
            co_return Fd{};
        }
        SourceActions actions = machine.on(source_event::Start{}, mono_ms());
        while (machine.state() == SMIG_SOURCE_CHECKING) {
            SMIG_CHECK(actions.size() == 1);
            if (shared_->cancel_asked) {
                actions = machine.on(source_event::CancelAsked{}, mono_ms());
                continue;
            }
            if (actions.front().what == SourceDo::sample_clocks) {
                const SourceEvent event = co_await sample_clocks(machine.deadline_ms());
                if (std::holds_alternative<source_event::ClocksSampled>(event)) {
                    auto forked = fork_processes(machine);
                    if (forked) co_return std::move(forked).value();
                    actions = machine.on(source_event::Broken{SMIG_REASON_CANCELLED, forked.error().text},
                                         mono_ms());
                    continue;
                }
                actions = machine.on(event, mono_ms());
                continue;
            }
            const SourceEvent event = co_await ask(actions.front().what, machine.deadline_ms());
            actions = machine.on(event, mono_ms());
        }
        const Bytes abort = encode(Failure{machine.reason(), machine.text()});
        if (!machine.refused()) (void)co_await channel().send(SMIG_WIRE_ABORT, abort, mono_ms() + 1000);
        channel().close();
        outcome.verdict = machine.refused() ? Verdict::refused : Verdict::rolled_back;
        put_text(outcome.reason, machine.text());
        co_return Fd{};
    }

    asio::awaitable<Result<void>> connect() {
        SocketAddress local;
        SocketAddress remote;
        local.length = to_sockaddr(network_.stay, 0, local.storage, network_.stay_index);
        remote.length = to_sockaddr(network_.peer, options_.port, remote.storage, network_.stay_index);
        progress("connecting to " + to_string(network_.peer) + " port " + std::to_string(options_.port));
        const std::int64_t until = mono_ms() + kConnectForMs;
        for (;;) {
            auto fd = connect_from(local, remote, kConnectOnceMs, {});
            if (fd) {
                asio::ip::tcp::socket socket(io_);
                socket.assign(network_.peer.family == 6 ? asio::ip::tcp::v6() : asio::ip::tcp::v4(),
                              fd.value().release());
                channel_.emplace(std::move(socket), kTargetPayload);
                co_return Result<void>{};
            }
            if (shared_->cancel_asked) co_return Error{Remedy::refused, "cancelled"};
            if (mono_ms() > until) co_return fd.error().within(options_.target);
            asio::steady_timer timer(io_, std::chrono::milliseconds(200));
            co_await timer.async_wait(kTuple);
        }
    }

    // There from connect() on.
    AsyncChannel& channel() {
        SMIG_CHECK(channel_.has_value());
        return *channel_;
    }

    asio::awaitable<SourceEvent> ask(SourceDo what, std::int64_t deadline_ms) {
        smig_wire_type type = SMIG_WIRE_HELLO;
        Bytes payload = hello();
        SourceDescription description;  // kept until the answer is here
        if (what == SourceDo::send_describe) {
            progress("comparing the machines");
            auto described = options_.describe(info_);
            if (!described) co_return SourceEvent(source_event::Refused{described.error().text});
            description = std::move(described).value();
            const ByteView text = encode_text(description.text);
            if (text.size() > SMIG_WIRE_MAX_TEXT)
                co_return SourceEvent(
                    source_event::Refused{"the description of this machine is too long to send"});
            type = SMIG_WIRE_DESCRIBE;
            payload.assign(text.begin(), text.end());
        }
        const auto sent = co_await channel().send(type, payload, deadline_ms);
        if (!sent) co_return failed(sent.error());
        const auto frame = co_await channel().receive(deadline_ms);
        if (!frame) co_return failed(frame.error());
        co_return event_of(frame.value());
    }

    [[nodiscard]] Bytes hello() const {
        smig_wire_hello hello{};
        std::ranges::copy(shared_->epoch, hello.epoch);
        hello.flags = options_.insecure ? SMIG_WIRE_INSECURE : 0;
        return encode(hello);
    }

    SourceEvent failed(const Error& error) const {
        if (shared_->cancel_asked) return source_event::CancelAsked{};
        if (error.remedy == Remedy::protocol) return source_event::Broken{SMIG_REASON_PROTOCOL, error.text};
        return source_event::Lost{false, error.text};
    }

    SourceEvent event_of(const Frame& frame) {
        switch (frame.type) {
            case SMIG_WIRE_WELCOME: {
                auto welcome = decode_welcome(frame.payload);
                if (!welcome) return failed(welcome.error());
                shared_->boot_nonce = std::to_array(welcome.value().boot_nonce);
                return source_event::Welcomed{shared_->boot_nonce};
            }
            case SMIG_WIRE_ACCEPT:
                return source_event::Accepted{};
            case SMIG_WIRE_REFUSE:
                return source_event::Refused{"the target refuses: " + printable(decode_text(frame.payload))};
            case SMIG_WIRE_FAILED: {
                auto failure = decode_failure(frame.payload);
                if (!failure) return failed(failure.error());
                return source_event::PeerFailed{failure.value().text};
            }
            default:
                return source_event::Broken{
                    SMIG_REASON_PROTOCOL,
                    std::string("the target sent ") + type_name(static_cast<std::uint16_t>(frame.type))};
        }
    }

    // The best of some round trips gives the offset of the two clocks.
    asio::awaitable<SourceEvent> sample_clocks(std::int64_t deadline_ms) {
        std::uint64_t best = UINT64_MAX;
        for (int i = 0; i < kClockSamples; ++i) {
            const std::uint64_t asked_ns = mono_ns();
            const Bytes question = encode(smig_wire_clock{asked_ns, 0});
            if (auto sent = co_await channel().send(SMIG_WIRE_CLOCK_ASK, question, deadline_ms); !sent)
                co_return failed(sent.error());
            auto frame = co_await channel().receive(deadline_ms);
            const std::uint64_t heard_ns = mono_ns();
            if (!frame) co_return failed(frame.error());
            if (frame.value().type != SMIG_WIRE_CLOCK) co_return event_of(frame.value());
            auto answer = decode_clock(frame.value().payload);
            if (!answer) co_return failed(answer.error());
            if (answer.value().source_mono_ns != asked_ns)
                co_return source_event::Broken{SMIG_REASON_PROTOCOL,
                                               "the target answers another question of the clock"};
            if (heard_ns - asked_ns >= best) continue;
            best = heard_ns - asked_ns;
            land_.clock_offset_ns = asked_ns + best / 2 - answer.value().target_mono_ns;
            land_.clock_error_ns = best / 2;
        }
        co_return source_event::ClocksSampled{};
    }

    Result<Fd> fork_processes(const SourceMachine& machine) {
        if (options_.transfer.drop_cache)
            if (auto dropped = drop_clean_cache(); !dropped) return dropped.error().within("--drop-cache");
        SocketAddress local;
        local.length = to_sockaddr(network_.stay, 0, local.storage, network_.stay_index);
        auto listener = listen_on(local, 8);
        if (!listener) return listener.error().within("the control port on " + to_string(network_.stay));
        land_.control_port = local_port(listener.value().get());
        StopPlan plan{machine,
                      shared_.get(),
                      land_,
                      options_.port,
                      network_,
                      Holds(options_.holds),
                      options_.transfer,
                      options_.keep_source,
                      options_.open_device,
                      options_.power,
                      options_.clone_main};
        StopConnection connection{Fd{}, channel().writer(), channel().next_received_sequence()};
        connection.socket = channel().release_fd();
        return fork_stop_and_supervisor(plan, std::move(connection), std::move(listener).value());
    }

    asio::awaitable<void> await_outcome(Fd pipe, MoveOutcome& outcome) {
        asio::posix::stream_descriptor reader(io_, pipe.release());
        const auto [error, count] =
            co_await asio::async_read(reader, asio::buffer(&outcome, sizeof(outcome)), kTuple);
        if (!error) co_return;
        outcome = MoveOutcome{};
        put_text(outcome.reason,
                 "the stop process and its supervisor died without a word; the module undoes what was begun");
    }

    const AgentOptions& options_;
    asio::io_context io_{1};
    asio::local::stream_protocol::socket client_;
    SharedStatePtr shared_;
    std::unique_ptr<OrderSocket> order_socket_;
    std::optional<AsyncChannel> channel_;
    smig_info info_{};
    smig_wire_land land_{};
    NetworkPlan network_;
    MoveFacts facts_;
    bool moved_ = false;
};

}  // namespace

int run_agent(const AgentOptions& options, Fd client) {
    return Agent(options, std::move(client)).run();
}

}  // namespace smig
