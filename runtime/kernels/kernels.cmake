plait_room(runtime/kernels LINKS plait_base)

# The only per-set flags of the project. These sources include nothing but C headers and intrinsics.
set(sources_of_sets ${PROJECT_SOURCE_DIR}/runtime/kernels/kernels_avx2.cc
                    ${PROJECT_SOURCE_DIR}/runtime/kernels/kernels_avx512.cc)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(${PROJECT_SOURCE_DIR}/runtime/kernels/kernels_avx2.cc TARGET_DIRECTORY plait_kernels
                              PROPERTIES COMPILE_OPTIONS "$<$<NOT:$<CONFIG:Debug>>:-O3>;-mavx2;-mfma")
  # g++ 12 takes the undefined pass-through operand of its own avx512 intrinsics for a mistake of ours.
  set_source_files_properties(${PROJECT_SOURCE_DIR}/runtime/kernels/kernels_avx512.cc TARGET_DIRECTORY plait_kernels
                              PROPERTIES COMPILE_OPTIONS
                                         "$<$<NOT:$<CONFIG:Debug>>:-O3>;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512bf16;-mfma;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
else()
  set_source_files_properties(${sources_of_sets} TARGET_DIRECTORY plait_kernels PROPERTIES HEADER_FILE_ONLY ON)
endif()
set_source_files_properties(${PROJECT_SOURCE_DIR}/runtime/kernels/kernels_portable.cc TARGET_DIRECTORY plait_kernels
                            PROPERTIES COMPILE_OPTIONS "$<$<NOT:$<CONFIG:Debug>>:-O3>")
# The fuzz targets parse; kernels with their instruments take minutes to compile and find nothing there.
if(PLAIT_FUZZ)
  target_compile_options(plait_kernels PRIVATE -fno-sanitize=all)
endif()
