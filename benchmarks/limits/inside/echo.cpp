// A bare gRPC server in C++ that answers every unary call with the bytes it came with: what gRPC itself costs here.
//
// Usage: echo HOST:PORT THREADS

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

// One call: asked for, read, answered, and then used again for the next one.
class Call {
 public:
  Call(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue) : service_(service), queue_(queue) {
    Ask();
  }

  void Proceed(bool ok) {
    if (!ok || step_ == Step::kAnswered) {
      Ask();
    } else if (step_ == Step::kAsked) {
      step_ = Step::kRead;
      stream_->Read(&message_, this);
    } else {
      step_ = Step::kAnswered;
      stream_->WriteAndFinish(message_, {}, grpc::Status::OK, this);
    }
  }

 private:
  enum class Step { kAsked, kRead, kAnswered };

  void Ask() {
    step_ = Step::kAsked;
    message_.Clear();
    stream_.reset();
    context_ = std::make_unique<grpc::GenericServerContext>();
    stream_ = std::make_unique<grpc::GenericServerAsyncReaderWriter>(context_.get());
    service_->RequestCall(context_.get(), stream_.get(), queue_, queue_, this);
  }

  grpc::AsyncGenericService* service_;
  grpc::ServerCompletionQueue* queue_;
  Step step_;
  grpc::ByteBuffer message_;
  std::unique_ptr<grpc::GenericServerContext> context_;
  std::unique_ptr<grpc::GenericServerAsyncReaderWriter> stream_;
};

constexpr int kCallsPerThread = 128;

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: echo HOST:PORT THREADS\n";
    return 2;
  }
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(arguments[1], grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterAsyncGenericService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues;
  for (int i = 0; i < std::atoi(arguments[2]); ++i) queues.push_back(builder.AddCompletionQueue());
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;

  std::vector<std::thread> threads;
  for (const auto& queue : queues) {
    threads.emplace_back([&service, &queue] {
      std::vector<std::unique_ptr<Call>> calls;
      for (int i = 0; i < kCallsPerThread; ++i) calls.push_back(std::make_unique<Call>(&service, queue.get()));
      void* tag;
      bool ok;
      while (queue->Next(&tag, &ok)) static_cast<Call*>(tag)->Proceed(ok);
    });
  }
  for (auto& thread : threads) thread.join();  // until a signal ends the process
}
