#include "mixrec/train/cli.h"

int main(int argc, char** argv) { return mixrec::cli(argc, argv); }
