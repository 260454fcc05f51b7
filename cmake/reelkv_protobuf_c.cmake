# reelkv_protobuf_c(target ROOT dir PROTOS a/b.proto ...): .proto -> static library of .pb-c.{c,h}.
# Imports rebuild their users (DEPFILE); generated warnings are not ours (SYSTEM).
function(reelkv_protobuf_c target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "ROOT" "PROTOS;USES")
  set(out "${CMAKE_CURRENT_BINARY_DIR}/gen")
  foreach(proto IN LISTS arg_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem "${proto}")
    get_filename_component(stem_dir "${out}/${stem}" DIRECTORY)
    add_custom_command(
      OUTPUT "${out}/${stem}.pb-c.c" "${out}/${stem}.pb-c.h"
      DEPFILE "${out}/${stem}.d"
      COMMAND ${CMAKE_COMMAND} -E make_directory "${stem_dir}"
      COMMAND ${REELKV_PROTOC} --plugin=protoc-gen-c=${REELKV_PROTOC_GEN_C}
              -I "${arg_ROOT}" --dependency_out=${out}/${stem}.d --c_out=${out} "${arg_ROOT}/${proto}"
      DEPENDS "${arg_ROOT}/${proto}"
      VERBATIM)
    list(APPEND sources "${out}/${stem}.pb-c.c" "${out}/${stem}.pb-c.h")
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC "${out}")
  target_link_libraries(${target} PUBLIC PkgConfig::PROTOBUF_C ${arg_USES})
endfunction()

# reelkv_descriptor_set(target ROOT dir PROTOS ... INCLUDES dir...): the FileDescriptorSet of the
# protos and their imports, linked in as reelkv_descriptor_set / reelkv_descriptor_set_size (for reflection).
function(reelkv_descriptor_set target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "ROOTS;PROTOS")
  set(set_file "${CMAKE_CURRENT_BINARY_DIR}/${target}.pb")
  set(asm_file "${CMAKE_CURRENT_BINARY_DIR}/${target}.S")
  foreach(root IN LISTS arg_ROOTS)
    list(APPEND includes -I "${root}")
  endforeach()
  foreach(proto IN LISTS arg_PROTOS)
    foreach(root IN LISTS arg_ROOTS)
      if(EXISTS "${root}/${proto}")
        list(APPEND depends "${root}/${proto}")
      endif()
    endforeach()
  endforeach()
  add_custom_command(
    OUTPUT "${set_file}"
    COMMAND ${REELKV_PROTOC} ${includes} --include_imports --descriptor_set_out=${set_file} ${arg_PROTOS}
    DEPENDS ${depends}
    VERBATIM)
  file(CONFIGURE OUTPUT "${asm_file}" @ONLY CONTENT [[
    .section .rodata
    .global reelkv_descriptor_set
    .global reelkv_descriptor_set_end
    .balign 16
reelkv_descriptor_set:
    .incbin "@set_file@"
reelkv_descriptor_set_end:
    .section .note.GNU-stack,"",%progbits
]])
  set_source_files_properties("${asm_file}" PROPERTIES OBJECT_DEPENDS "${set_file}" LANGUAGE C)
  set_property(SOURCE "${asm_file}" APPEND PROPERTY COMPILE_OPTIONS -x assembler)
  add_library(${target} STATIC "${asm_file}" "${set_file}")
endfunction()
