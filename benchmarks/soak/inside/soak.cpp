// Sends unary gRPC calls, some of which it cancels and some of which it lets expire, and checks every answer.
//
// Usage: soak HOST:PORT PATH TOKEN SAMPLES TOTAL IN_FLIGHT CONNECTIONS CANCELLED EXPIRED LEAST_MS MOST_MS FLOATS
//
// SAMPLES is a file: per sample the request and its answer, each behind its length (uint32, little-endian). An answer is
// right if it has the bytes of the sample's, but for the last FLOATS 32-bit floats, which may differ in the last bits:
// a batch of another size rounds differently. CANCELLED and EXPIRED are shares between 0 and 1; a call that is to be
// given up is so after a random time from LEAST_MS to MOST_MS. Prints one line per 100,000 calls ("done N"), the first plain
// calls that failed ("problem ..."), and at the end "result NAME COUNT" lines. NAME: KIND/CODE, with KIND plain, cancelled or expired, or wrong-answer.

#include <grpcpp/alarm.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

using Clock = std::chrono::system_clock;

struct Sample {
  grpc::ByteBuffer request;
  std::string answer;
};

struct Settings {
  std::string path, authorization;
  long total;
  double cancelled, expired;
  int least_us, most_us;
  size_t floats;
};

enum class Kind { kPlain, kCancelled, kExpired };
constexpr const char* kNames[] = {"plain", "cancelled", "expired"};
constexpr auto kLongest = std::chrono::seconds(60);  // a plain call that takes longer has not been answered

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const auto& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

bool Right(const std::string& given, const std::string& expected, size_t floats) {
  const size_t tail = floats * sizeof(float);
  if (given.size() != expected.size() || given.size() < tail) return false;
  const size_t head = given.size() - tail;
  if (std::memcmp(given.data(), expected.data(), head) != 0) return false;
  for (size_t at = head; at < given.size(); at += sizeof(float)) {
    float one, other;
    std::memcpy(&one, given.data() + at, sizeof one);
    std::memcpy(&other, expected.data() + at, sizeof other);
    if (!(std::fabs(one - other) <= 1e-4f + 1e-3f * std::fabs(other))) return false;
  }
  return true;
}

constexpr long kMostTold = 20;

// What is told to a completion queue: that a call has ended, or that it is time to cancel it.
class Call;
struct Tag {
  Call* call;
  bool ended;
};

class Soak;

// One place for a call in flight; the next call begins when both call and alarm are through.
class Call {
 public:
  Call(Soak* soak, grpc::GenericStub* stub) : soak_(soak), stub_(stub) {}
  void Begin();
  void Proceed(bool ended);

 private:
  Soak* soak_;
  grpc::GenericStub* stub_;
  Kind kind_ = Kind::kPlain;
  const Sample* sample_ = nullptr;
  int waiting_ = 0;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader_;
  std::unique_ptr<grpc::Alarm> alarm_;
  Tag ended_{this, true}, cancel_{this, false};
};

class Soak {
 public:
  Soak(const Settings& settings, std::vector<Sample> samples) : settings(settings), samples_(std::move(samples)) {}

  bool MayBegin() { return begun_ < settings.total && ++begun_; }

  Kind NextKind() {
    const double chance = std::uniform_real_distribution<>(0, 1)(random_);
    if (chance < settings.cancelled) return Kind::kCancelled;
    return chance < settings.cancelled + settings.expired ? Kind::kExpired : Kind::kPlain;
  }

  const Sample* NextSample() { return &samples_[random_() % samples_.size()]; }

  std::chrono::microseconds Patience() {
    return std::chrono::microseconds(std::uniform_int_distribution<>(settings.least_us, settings.most_us)(random_));
  }

  void Ended(Kind kind, const grpc::Status& status, bool right) {
    ++counts_[std::string(kNames[static_cast<int>(kind)]) + "/" + std::to_string(status.error_code())];
    if (status.ok() && !right) ++counts_["wrong-answer"];
    if (kind == Kind::kPlain && !status.ok() && told_++ < kMostTold) {
      std::cout << "problem after " << done_ << " calls: " << status.error_message() << std::endl;
    }
    if (++done_ % 100000 == 0) std::cout << "done " << done_ << std::endl;
  }

  void Report() const {
    std::cout << "result done " << done_ << "\n";
    for (const auto& [name, count] : counts_) std::cout << "result " << name << " " << count << "\n";
    std::cout << std::flush;
  }

  bool Through() const { return done_ >= settings.total; }

  const Settings settings;
  grpc::CompletionQueue queue;

 private:
  std::vector<Sample> samples_;
  std::mt19937_64 random_{20};
  std::map<std::string, long> counts_;
  long begun_ = 0, done_ = 0, told_ = 0;
};

void Call::Begin() {
  if (!soak_->MayBegin()) return;
  kind_ = soak_->NextKind();
  sample_ = soak_->NextSample();
  answer_.Clear();
  context_ = std::make_unique<grpc::ClientContext>();
  context_->AddMetadata("authorization", soak_->settings.authorization);
  const auto patience = soak_->Patience();
  context_->set_deadline(kind_ == Kind::kExpired ? Clock::now() + patience : Clock::now() + kLongest);
  reader_ = stub_->PrepareUnaryCall(context_.get(), soak_->settings.path, sample_->request, &soak_->queue);
  reader_->StartCall();
  reader_->Finish(&answer_, &status_, &ended_);
  waiting_ = 1;
  if (kind_ == Kind::kCancelled) {
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(&soak_->queue, Clock::now() + patience, &cancel_);
    ++waiting_;
  }
}

void Call::Proceed(bool ended) {
  if (ended && alarm_ != nullptr) alarm_->Cancel();
  if (!ended) context_->TryCancel();
  if (--waiting_ > 0) return;
  alarm_.reset();
  soak_->Ended(kind_, status_, status_.ok() && Right(Bytes(answer_), sample_->answer, soak_->settings.floats));
  Begin();
}

bool ReadPart(std::ifstream& file, std::string* bytes) {
  uint32_t size;
  if (!file.read(reinterpret_cast<char*>(&size), sizeof size)) return false;
  bytes->resize(size);
  return static_cast<bool>(file.read(bytes->data(), size));
}

std::vector<Sample> ReadSamples(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<Sample> samples;
  std::string request, answer;
  while (ReadPart(file, &request) && ReadPart(file, &answer)) {
    grpc::Slice slice(request);
    samples.push_back({grpc::ByteBuffer(&slice, 1), answer});
  }
  return samples;
}

int main(int count, char** arguments) {
  if (count != 13) {
    std::cerr << "usage: soak HOST:PORT PATH TOKEN SAMPLES TOTAL IN_FLIGHT CONNECTIONS CANCELLED EXPIRED LEAST_MS"
                 " MOST_MS FLOATS\n";
    return 2;
  }
  const Settings settings{arguments[2], std::string("Bearer ") + arguments[3], std::atol(arguments[5]),
                          std::atof(arguments[8]), std::atof(arguments[9]), std::atoi(arguments[10]) * 1000,
                          std::atoi(arguments[11]) * 1000, static_cast<size_t>(std::atol(arguments[12]))};
  std::vector<Sample> samples = ReadSamples(arguments[4]);
  if (samples.empty()) return 2;

  Soak soak(settings, std::move(samples));
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
  for (int i = 0; i < std::atoi(arguments[7]); ++i) {
    grpc::ChannelArguments options;
    options.SetInt("grpc.benchmark.connection", i);  // else gRPC would share one connection
    stubs.push_back(std::make_unique<grpc::GenericStub>(
        grpc::CreateCustomChannel(arguments[1], grpc::InsecureChannelCredentials(), options)));
  }
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < std::atoi(arguments[6]); ++i) {
    calls.push_back(std::make_unique<Call>(&soak, stubs[i % stubs.size()].get()));
    calls.back()->Begin();
  }
  void* tag;
  bool ok;
  while (!soak.Through() && soak.queue.Next(&tag, &ok)) {
    const Tag* told = static_cast<Tag*>(tag);
    // An alarm that was taken back comes too, with ok false: nothing is left to cancel.
    if (!told->ended && !ok) {
      told->call->Proceed(true);
    } else {
      told->call->Proceed(told->ended);
    }
  }
  soak.Report();
  return 0;
}
