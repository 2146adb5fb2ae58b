// Package chunker splits a byte stream into content-defined chunks with
// FastCDC 2020, so that an edit to a stream changes only the chunks around it
// and the rest deduplicate.
//
// # Specification
//
// The cut points are a wire contract: clients that chunk on their own side only
// share chunks with this server when every cut agrees. They follow
// FastCdc2020Params of Bazel's Remote Execution API
// (build/bazel/remote/execution/v2/remote_execution.proto), that is:
//
//   - the algorithm of Xia et al., "The Design of Fast Content-Defined Chunking
//     for Data Deduplication Based Storage Systems", IEEE TPDS 2020
//     (https://ieeexplore.ieee.org/document/9055082), with the two bytes per
//     step of its section 3.7;
//   - normalization level 2;
//   - a gear table made of the high 64 bits of the MD5 of each byte value,
//     repeated 64 times;
//   - the judgement masks of the authors' C implementation, continued for
//     larger averages.
//
// Where paper and proto leave room (rounding of odd sizes, input of the MD5, use
// of the seed), the package agrees with the two implementations the proto names,
// the Rust crate fastcdc (module v2020) and github.com/buildbuddy-io/fastcdc2020,
// and with the test vectors beside the proto.
//
// # Confidentiality
//
// Chunk lengths depend on the content, so they reveal something about it to
// whoever sees them. [Params.Seed] shifts the cut points but is an advertised,
// 32-bit parameter: it is no secret key.
package chunker
