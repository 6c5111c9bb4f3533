// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/session.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <optional>

#include "agent/base/clock.hpp"
#include "agent/base/random.hpp"
#include "agent/peer/image_loader.hpp"
#include "agent/policy/ownership.hpp"
#include "agent/wire/codec.hpp"

namespace smig {

namespace asio = boost::asio;

namespace {

constexpr std::int64_t kSendMs = 10'000;
constexpr std::int64_t kFarewellMs = 1'000;

smig_wire_reason reason_of(const Error& error) {
    switch (error.remedy) {
        case Remedy::protocol:
            return SMIG_REASON_PROTOCOL;
        case Remedy::refused:
            return SMIG_REASON_REFUSED;
        default:
            return SMIG_REASON_DEVICE;
    }
}

class Session {
public:
    Session(const ReceiverOptions& options, const WireId& boot_nonce, asio::ip::tcp::socket socket,
            std::unique_ptr<Device> ready)
        : options_(options),
          boot_nonce_(boot_nonce),
          peer_(name_of(socket)),
          channel_(std::move(socket), SMIG_WIRE_MAX_PAYLOAD),
          machine_(options.limits, mono_ms()),
          device_(std::move(ready)),
          begun_(device_ != nullptr) {}

    asio::awaitable<void> run() {
        options_.log("a source calls: " + peer_);
        while (!machine_.over()) {
            const auto frame = co_await channel_.receive(machine_.deadline_ms());
            const TargetEvent event = frame ? event_of(frame.value()) : event_of(frame.error());
            co_await feed(event, frame ? &frame.value() : nullptr);
        }
        options_.log("gave up on " + peer_ + ": " + machine_.text());
    }

private:
    static std::string name_of(const asio::ip::tcp::socket& socket) {
        boost::system::error_code error;
        const auto end = socket.remote_endpoint(error);
        return error ? std::string("nobody")
                     : end.address().to_string() + " port " + std::to_string(end.port());
    }

    // `frame`: the one that `first` came from; it lives through all actions.
    asio::awaitable<void> feed(const TargetEvent& first, const Frame* frame) {
        std::optional<TargetEvent> event = first;
        while (event) {
            const smig_session_state before = machine_.state();
            const TargetActions actions = machine_.on(*event, mono_ms());
            event.reset();
            if (machine_.state() != before) co_await entered();
            for (const TargetDo action : actions) {
                const smig_wire_type type = message_of(action);
                if (type == smig_wire_type{}) {
                    if (auto outcome = perform(action, frame)) event = std::move(outcome);
                    continue;
                }
                const Bytes payload = payload_of(action, frame);
                const bool last = action == TargetDo::send_refuse || action == TargetDo::send_failed;
                const auto sent =
                    co_await channel_.send(type, payload, mono_ms() + (last ? kFarewellMs : kSendMs));
                if (last && sent) co_await channel_.drain(mono_ms() + kFarewellMs);
                if (!last && !sent) event = target_event::Lost{sent.error().text};
            }
        }
    }

    asio::awaitable<void> entered() {
        if (!machine_.over()) options_.log(std::string("state ") + state_name(machine_.state()));
        if (const std::int64_t ms = options_.holds.ms_in(machine_.state()); ms > 0) {
            asio::steady_timer timer(channel_.socket().get_executor(), std::chrono::milliseconds(ms));
            co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
        }
    }

    [[nodiscard]] TargetEvent event_of(const Error& error) const {
        if (mono_ms() >= machine_.deadline_ms()) return target_event::DeadlinePassed{};
        if (error.remedy == Remedy::protocol) return target_event::Broken{SMIG_REASON_PROTOCOL, error.text};
        return target_event::Lost{error.text};
    }

    TargetEvent event_of(const Frame& frame) {
        const auto broken = [](const Error& error) {
            return target_event::Broken{SMIG_REASON_PROTOCOL, error.text};
        };
        switch (frame.type) {
            case SMIG_WIRE_HELLO: {
                auto hello = decode_hello(frame.payload);
                if (!hello) return broken(hello.error());
                epoch_ = std::to_array(hello.value().epoch);
                return target_event::Hello{(hello.value().flags & SMIG_WIRE_INSECURE) != 0};
            }
            case SMIG_WIRE_DESCRIBE:
                return target_event::Described{};
            case SMIG_WIRE_CLOCK_ASK:
                return target_event::ClockAsked{};
            case SMIG_WIRE_LAND: {
                auto land = decode_land(frame.payload);
                if (!land) return broken(land.error());
                land_ = land.value();
                return target_event::LandAsked{};
            }
            case SMIG_WIRE_VACANT:
            case SMIG_WIRE_IMAGE:
            case SMIG_WIRE_BITMAP:
            case SMIG_WIRE_PAGES:
            case SMIG_WIRE_ZEROS:
                return target_event::ImagePart{};
            case SMIG_WIRE_IMAGE_END:
                return target_event::ImageEnd{};
            case SMIG_WIRE_JUMP:
                return target_event::JumpAsked{};
            case SMIG_WIRE_FAILED:
            case SMIG_WIRE_ABORT: {
                auto failure = decode_failure(frame.payload);
                if (!failure) return broken(failure.error());
                return target_event::PeerFailed{failure.value().text};
            }
            default:
                return target_event::Broken{
                    SMIG_REASON_PROTOCOL,
                    std::string("the source sent ") + type_name(static_cast<std::uint16_t>(frame.type))};
        }
    }

    // The frame that an action sends; 0: it sends none.
    static smig_wire_type message_of(TargetDo action) {
        switch (action) {
            case TargetDo::send_welcome:
                return SMIG_WIRE_WELCOME;
            case TargetDo::send_accept:
                return SMIG_WIRE_ACCEPT;
            case TargetDo::send_refuse:
                return SMIG_WIRE_REFUSE;
            case TargetDo::send_clock:
                return SMIG_WIRE_CLOCK;
            case TargetDo::send_landed:
                return SMIG_WIRE_LANDED;
            case TargetDo::send_ready:
                return SMIG_WIRE_READY;
            case TargetDo::send_failed:
                return SMIG_WIRE_FAILED;
            default:
                return smig_wire_type{};
        }
    }

    [[nodiscard]] Bytes payload_of(TargetDo action, const Frame* frame) const {
        switch (action) {
            case TargetDo::send_welcome: {
                smig_wire_welcome welcome{};
                std::ranges::copy(boot_nonce_, welcome.boot_nonce);
                welcome.flags = SMIG_WIRE_INSECURE;
                return encode(welcome);
            }
            case TargetDo::send_refuse: {
                const ByteView text = encode_text(machine_.text());
                return {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                                         text.size(), SMIG_WIRE_MAX_TEXT))};
            }
            case TargetDo::send_clock: {
                smig_wire_clock clock{};
                if (auto asked = decode_clock(frame->payload)) clock = asked.value();
                clock.target_mono_ns = mono_ns();
                return encode(clock);
            }
            case TargetDo::send_landed:
                return encode(landed_);
            case TargetDo::send_ready:
                return encode(counts_);
            case TargetDo::send_failed:
                return encode(Failure{machine_.reason(), machine_.text()});
            default:
                return {};
        }
    }

    std::optional<TargetEvent> perform(TargetDo action, const Frame* frame) {
        switch (action) {
            case TargetDo::check:
                return check(*frame);
            case TargetDo::land:
                return land();
            case TargetDo::load:
                return load(*frame);
            case TargetDo::finish_image: {
                auto counts = loader_->finish(*frame);
                if (!counts) return target_event::Broken{SMIG_REASON_INTEGRITY, counts.error().text};
                counts_ = counts.value();
                return target_event::ImageWhole{};
            }
            case TargetDo::jump:
                return jump();
            case TargetDo::close_device:
                loader_.reset();
                device_.reset();
                return {};
            case TargetDo::disconnect:
                channel_.close();
                return {};
            default:
                return {};
        }
    }

    static std::optional<TargetEvent> answer(const Result<void>& result) {
        if (result) return {};
        return target_event::Broken{reason_of(result.error()), result.error().text};
    }

    TargetEvent check(const Frame& frame) {
        if (!device_) {
            auto opened = options_.open_device();
            if (!opened) return target_event::Checked{false, opened.error().text};
            device_ = std::move(opened).value();
        }
        if (auto told = device_->info(info_); !told) return target_event::Checked{false, told.error().text};
        std::string text;
        for (const std::string& reason : options_.check(info_, decode_text(frame.payload)))
            text += (text.empty() ? "" : "\n") + reason;
        return target_event::Checked{text.empty(), text};
    }

    TargetEvent land() {
        if (!begun_)
            if (auto begun = device_->begin(SMIG_ROLE_TARGET); !begun)
                return target_event::Broken{SMIG_REASON_DEVICE, begun.error().text};
        smig_land land{};
        land.reserve_pages = options_.reserve_pages;
        if (auto held = device_->land(land); !held)
            return target_event::Broken{SMIG_REASON_NO_MEMORY, held.error().text};
        landed_ = {land.held_pages, land.footprint_pages, land.vacant_pages, land.kernel_start,
                   land.kernel_pages};
        loader_ = std::make_unique<ImageLoader>(*device_, Pfn{info_.top_pfn});
        options_.log("holds " + std::to_string(land.held_pages / 256) + " MiB, keeps " +
                     std::to_string(land.footprint_pages / 256) + " MiB, needs " +
                     std::to_string(land.vacant_pages / 256) + " MiB to stay empty");
        return target_event::LandDone{};
    }

    std::optional<TargetEvent> load(const Frame& frame) {
        const std::uint64_t begun_ns = mono_ns();
        if (loaded_first_ns_ == 0) loaded_first_ns_ = begun_ns;
        const auto loaded = loader_->load(frame);
        loaded_last_ns_ = mono_ns();
        load_ns_ += loaded_last_ns_ - begun_ns;
        return answer(loaded);
    }

    // Comes back only when the jump has failed.
    TargetEvent jump() {
        boost::system::error_code error;
        const auto local = channel_.socket().local_endpoint(error);
        const auto remote = channel_.socket().remote_endpoint(error);
        const auto local_ip = from_sockaddr(local.data());
        const auto source_ip = from_sockaddr(remote.data());
        if (error || !local_ip || !source_ip)
            return target_event::Broken{SMIG_REASON_CANCELLED, "the connection to the source is gone"};
        auto blob = options_.handover(*local_ip, *source_ip, static_cast<std::uint16_t>(land_.control_port),
                                      epoch_, boot_nonce_);
        if (!blob) return target_event::Broken{SMIG_REASON_DEVICE, blob.error().text};
        std::string handover = std::move(blob).value();
        options_.log("jumping with " + std::to_string(loader_->received_pages()) + " pages, which took " +
                     std::to_string((loaded_last_ns_ - loaded_first_ns_) / 1'000'000) + " ms, " +
                     std::to_string(load_ns_ / 1'000'000) + " of them to place");
        smig_jump jump{};
        jump.handover = std::bit_cast<std::uint64_t>(handover.data());
        jump.handover_len = static_cast<std::uint32_t>(handover.size());
        fill_random(std::span(jump.entropy));
        jump.local_mono_ns = mono_ns();
        jump.source_mono_ns = jump.local_mono_ns + land_.clock_offset_ns;
        const Error failed = device_->jump(jump);
        return target_event::Broken{SMIG_REASON_DEVICE, failed.text};
    }

    const ReceiverOptions& options_;
    const WireId& boot_nonce_;
    std::string peer_;
    AsyncChannel channel_;
    TargetMachine machine_;
    std::unique_ptr<Device> device_;
    bool begun_;
    std::unique_ptr<ImageLoader> loader_;
    smig_info info_{};
    WireId epoch_{};
    smig_wire_land land_{};
    smig_wire_landed landed_{};
    smig_wire_ready counts_{};
    std::uint64_t loaded_first_ns_ = 0;
    std::uint64_t loaded_last_ns_ = 0;
    std::uint64_t load_ns_ = 0;
};

}  // namespace

asio::awaitable<void> run_session(const ReceiverOptions& options, const WireId& boot_nonce,
                                  asio::ip::tcp::socket socket, std::unique_ptr<Device> ready) {
    Session session(options, boot_nonce, std::move(socket), std::move(ready));
    co_await session.run();
}

}  // namespace smig
