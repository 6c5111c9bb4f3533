// SPDX-License-Identifier: Apache-2.0
#include "agent/device/char_device.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <string>

#include "agent/base/check.hpp"
#include "agent/base/fd.hpp"

namespace smig {

namespace {

constexpr const char* kPath = "/dev/" SMIG_DEVICE_NAME;
constexpr std::size_t kBufferBytes = std::size_t{SMIG_BUFFER_PAGES} * 4096;

Remedy remedy_of(int code) {
    switch (code) {
        case EAGAIN:
        case ENOSPC:
        case EINTR:
            return Remedy::retry;
        case EBUSY:
        case EPERM:
        case ENOMEM:
        case ENOBUFS:
        case EOPNOTSUPP:
            return Remedy::refused;
        default:
            return Remedy::fatal;
    }
}

// What errno means here, in the words of the header; nullptr where strerror() says it.
const char* meaning_of(int code) {
    switch (code) {
        case EBUSY:
            return "another process is moving this guest";
        case EBADFD:
            return "not in this state of the move";
        case EOPNOTSUPP:
            return "this kernel or machine cannot do it (the kernel log names what)";
        case ENOMEM:
            return "not enough free memory";
        case ENOBUFS:
            return "the guest ran out of memory and got back what was held for the move; free some memory";
        case ENOSPC:
            return "the shadow or the spare frames do not suffice";
        case EAGAIN:
            return "something moved under the capture";
        case ENODATA:
            return "the image is incomplete";
        case EILSEQ:
            return "the image header does not fit this machine";
        default:
            return nullptr;
    }
}

Error failure(const char* name, int code, std::uint32_t failed_step = 0) {
    const char* meaning = meaning_of(code);
    std::string text =
        std::string("module: ") + name + ": " + (meaning != nullptr ? meaning : std::strerror(code));
    if (failed_step != 0) text += std::string(" (in step ") + failed_step_name(failed_step) + ")";
    return {remedy_of(code), text};
}

class CharDevice final : public Device {
public:
    explicit CharDevice(Fd fd) : fd_(std::move(fd)) {}
    ~CharDevice() override {
        // A mapping would keep the file open, and what it began would not be undone.
        if (buffer_ != nullptr) ::munmap(buffer_, kBufferBytes);
    }
    CharDevice(const CharDevice&) = delete;
    CharDevice& operator=(const CharDevice&) = delete;

    Result<void> info(smig_info& out) override { return call(SMIG_IOC_INFO, "INFO", out); }
    Result<void> status(smig_status& out) override { return call(SMIG_IOC_STATUS, "STATUS", out); }
    Result<void> begin(std::uint32_t role) override {
        smig_begin begin{};
        begin.role = role;
        return call(SMIG_IOC_BEGIN, "BEGIN", begin);
    }
    Result<void> set_flows(smig_flows& flows) override { return call(SMIG_IOC_FLOWS, "FLOWS", flows); }
    Result<void> exempt() override { return plain(SMIG_IOC_EXEMPT, "EXEMPT"); }

    Result<void> prepare(smig_prepare& prepare, std::uint32_t flags) override {
        auto result = call(SMIG_IOC_PREPARE, "PREPARE", prepare, nullptr, flags);
        if (!result && prepare.needed_pages > prepare.available_pages) {
            const auto mib = [](std::uint64_t pages) { return std::to_string((pages + 255) / 256) + " MiB"; };
            return Error{Remedy::refused, result.error().text + ": the stop needs " +
                                              mib(prepare.needed_pages) + ", " +
                                              mib(prepare.available_pages) + " can be had; free some memory"};
        }
        return result;
    }
    Result<void> track(smig_track& track, std::uint32_t flags) override {
        return call(SMIG_IOC_TRACK, "TRACK", track, nullptr, flags);
    }
    Result<void> pass(smig_pass& pass, std::uint32_t flags) override {
        return call(SMIG_IOC_PASS, "PASS", pass, nullptr, flags);
    }
    Result<void> owe(smig_owe& owe) override { return call(SMIG_IOC_OWE, "OWE", owe); }
    Result<void> capture(smig_capture& capture, std::uint32_t flags) override {
        return call(SMIG_IOC_CAPTURE, "CAPTURE", capture, &capture.failed_step, flags);
    }
    Result<void> read(smig_read& read) override { return call(SMIG_IOC_READ, "READ", read); }
    Result<std::span<const std::byte>> map_buffer() override {
        if (buffer_ == nullptr) {
            void* mapped = ::mmap(nullptr, kBufferBytes, PROT_READ, MAP_SHARED, fd_.get(), 0);
            if (mapped == MAP_FAILED) return errno_error(Remedy::fatal, "module: mapping its buffer");
            buffer_ = mapped;
        }
        return std::span(static_cast<const std::byte*>(buffer_), kBufferBytes);
    }
    Result<void> verify() override { return plain(SMIG_IOC_VERIFY, "VERIFY"); }
    Result<void> commit() override { return plain(SMIG_IOC_COMMIT, "COMMIT"); }
    Result<void> thaw() override { return plain(SMIG_IOC_THAW, "THAW"); }
    Result<std::size_t> owed_list(std::uint64_t start, std::span<smig_owed_page> pages) override {
        smig_owed_list list{};
        list.start = start;
        list.entries = std::bit_cast<std::uint64_t>(pages.data());
        list.nr = static_cast<std::uint32_t>(pages.size());
        if (auto told = call(SMIG_IOC_OWED_LIST, "OWED_LIST", list); !told) return told.error();
        return std::size_t{list.nr_out};
    }

    Result<void> land(smig_land& land) override { return call(SMIG_IOC_LAND, "LAND", land); }
    Result<void> vacant(smig_vacant& vacant) override { return call(SMIG_IOC_VACANT, "VACANT", vacant); }
    Result<void> image(smig_image& image) override { return call(SMIG_IOC_IMAGE, "IMAGE", image); }
    Result<void> place(smig_place& place, std::uint32_t flags) override {
        return call(SMIG_IOC_PLACE, "PLACE", place, nullptr, flags);
    }
    Error jump(smig_jump& jump) override {
        const auto result = call(SMIG_IOC_JUMP, "JUMP", jump, &jump.failed_step);
        return result ? Error{Remedy::fatal, "module: JUMP came back"} : result.error();
    }
    Result<void> release(smig_release& release, std::uint32_t flags) override {
        return call(SMIG_IOC_RELEASE, "RELEASE", release, nullptr, flags);
    }
    Result<void> install(smig_install& install, std::uint32_t flags) override {
        return call(SMIG_IOC_INSTALL, "INSTALL", install, nullptr, flags);
    }
    Result<void> owed_status(smig_owed_status& status, std::uint32_t flags) override {
        return call(SMIG_IOC_OWED_STATUS, "OWED_STATUS", status, nullptr, flags);
    }
    Result<std::size_t> read_faults(std::span<smig_fault> faults) override {
        // Not before poll() says so: the file is opened to block, as its other users want it.
        pollfd entry{fd_.get(), POLLIN, 0};
        if (::poll(&entry, 1, 0) <= 0 || (entry.revents & POLLIN) == 0) return std::size_t{0};
        const ssize_t got = ::read(fd_.get(), faults.data(), faults.size_bytes());
        if (got >= 0) return static_cast<std::size_t>(got) / sizeof(smig_fault);
        const int code = errno;
        // When the last page has come there are no faults any more.
        if (code == EAGAIN || code == EINTR || code == EBADFD) return std::size_t{0};
        return failure("reading faults", code);
    }
    [[nodiscard]] int fault_fd() const override { return fd_.get(); }

private:
    template <class Argument>
    Result<void> call(unsigned long request, const char* name, Argument& argument,
                      const std::uint32_t* failed_step = nullptr, std::uint32_t flags = 0) {
        SMIG_CHECK(argument.flags == 0);  // they are told beside it
        argument.size = sizeof(argument);
        argument.flags = flags;
        if (::ioctl(fd_.get(), request, &argument) == 0) return {};
        const int code = errno;
        return failure(name, code, failed_step != nullptr ? *failed_step : 0);
    }
    Result<void> plain(unsigned long request, const char* name) {
        smig_plain argument{};
        return call(request, name, argument);
    }

    Fd fd_;
    void* buffer_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<Device>> open_char_device() {
    Fd fd(::open(kPath, O_RDWR | O_CLOEXEC));
    if (!fd) {
        const int code = errno;
        std::string text = std::string(kPath) + ": " + std::strerror(code);
        if (code == ENOENT || code == ENODEV || code == ENXIO)
            text += ": load the module first (insmod selfmigrate.ko)";
        if (code == EACCES || code == EPERM) text += ": run this as root";
        return Error{Remedy::refused, text};
    }
    std::unique_ptr<Device> device = std::make_unique<CharDevice>(std::move(fd));
    smig_info info{};
    if (auto told = device->info(info); !told) return told.error();
    if (info.abi_version != SMIG_ABI_VERSION)
        return Error{Remedy::refused, "the loaded module speaks ABI " + std::to_string(info.abi_version) +
                                          ", this agent " + std::to_string(SMIG_ABI_VERSION) +
                                          ": load the module of the same build"};
    return device;
}

}  // namespace smig
