// The four lines of the README, in a program of their own: consumer MODEL.h5
#include <cstdio>
#include <vector>

#include "runtime/run/stream.h"
#include "weights/model_file.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::vector<plait::Token> prompt = {'T', 'o', ' ', 'b', 'e'};
  auto model = plait::load(argv[1]);
  plait::Stream s(model);
  auto logits = s.feed(prompt);
  logits = s.feed({','});

  std::printf("position %td, %zu logits, the first %.6f\n", s.position(), logits.size(), logits[0]);
  return s.position() == 6 && static_cast<plait::Index>(logits.size()) == model->card().vocab ? 0 : 1;
}
