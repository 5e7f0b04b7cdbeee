import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nnunetv2_d2net.base import files
from nnunetv2_d2net.base.errors import UserError
from nnunetv2_d2net.base.files import (
    append_json_line,
    append_text,
    check_key,
    content_state,
    explaining_disk_errors,
    explaining_full_disk,
    file_state,
    locked,
    locked_folder,
    locked_output,
    make_folder,
    publish,
    read_json,
    read_json_lines,
    read_json_or,
    sha256_of,
    unfinished_folder,
    write_json,
    write_text,
    written_whole,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def one_line(error):
    line = str(error.value)
    assert "\n" not in line
    return line


def start(script, *arguments):
    """Start a Python program; what it prints can be read from ``stdout``."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


def wait_for(process, line):
    assert process.stdout.readline().strip() == line


class TestWrittenWhole:
    def test_a_file_gets_its_name_when_it_is_complete(self, tmp_path):
        path = tmp_path / "new" / "a.nii.gz"
        with written_whole(path) as unfinished:
            unfinished.write_bytes(b"half")
            assert not path.exists()
            unfinished.write_bytes(b"whole")
        assert path.read_bytes() == b"whole"
        assert names(path.parent) == ["a.nii.gz"]

    @pytest.mark.parametrize("name", ["a.nii.gz", ".hidden", "no ending", "a" * 250, "ä.txt"])
    def test_writers_see_the_file_ending(self, tmp_path, name):
        with written_whole(tmp_path / name) as unfinished:
            assert unfinished.name == name
            unfinished.touch()
        assert names(tmp_path) == [name]

    @pytest.mark.parametrize(
        "error", [ValueError("mine"), KeyboardInterrupt(), UserError("mine"), RuntimeError("mine")]
    )
    def test_what_the_body_raises_passes_and_leaves_the_old_file(self, tmp_path, error):
        path = tmp_path / "a.txt"
        path.write_text("old", encoding="utf-8")

        def write_half():
            with written_whole(path) as unfinished:
                unfinished.write_text("half", encoding="utf-8")
                raise error

        with pytest.raises(type(error)) as raised:
            write_half()
        assert raised.value is error
        assert path.read_text(encoding="utf-8") == "old"
        assert names(tmp_path) == ["a.txt"]

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
    @pytest.mark.parametrize("where", ["mkdir", "write_bytes", "replace", "fsync"])
    def test_a_disk_that_fails(self, tmp_path, monkeypatch, number, where):
        def fail(*_args, **_kwargs):
            raise OSError(number, os.strerror(number))

        path = tmp_path / "a.txt"
        path.write_text("old", encoding="utf-8")
        monkeypatch.setattr(*((os, where) if where == "fsync" else (Path, where)), fail)
        with pytest.raises(UserError) as error:
            write_text(path, "new")
        assert one_line(error) == (
            f"{path} cannot be written ({os.strerror(number)}): free space or make it writable, then run again"
        )
        monkeypatch.undo()
        assert path.read_text(encoding="utf-8") == "old"
        assert names(tmp_path) == ["a.txt"]

    def test_a_full_disk(self, small_disk):
        write_text(small_disk / "a.txt", "old")
        with pytest.raises(UserError, match="No space left on device"):
            write_text(small_disk / "a.txt", "new" * 100_000)
        assert (small_disk / "a.txt").read_text(encoding="utf-8") == "old"
        assert names(small_disk) == ["a.txt"]
        write_text(small_disk / "a.txt", "new")  # there is room again

    def test_a_folder_that_cannot_be_written(self, closed_folder):
        with pytest.raises(
            UserError, match=r"a\.txt cannot be written \((Operation not permitted|Permission denied)\)"
        ):
            write_text(closed_folder / "a.txt", "new")
        with pytest.raises(UserError, match=r"closed cannot be written .*: pass another folder"):
            make_folder(closed_folder)
        assert names(closed_folder) == []

    def test_a_folder_in_the_place_of_the_file(self, tmp_path):
        (tmp_path / "a.txt" / "kept").mkdir(parents=True)
        with pytest.raises(UserError, match=r"a\.txt cannot be written \(Is a directory\)"):
            write_text(tmp_path / "a.txt", "new")
        assert names(tmp_path / "a.txt") == ["kept"]
        assert names(tmp_path) == ["a.txt"]

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "file").touch()
        for act in (lambda: write_text(tmp_path / "file" / "a.txt", "new"), lambda: make_folder(tmp_path / "file")):
            with pytest.raises(UserError, match="cannot be written"):
                act()
        assert names(tmp_path) == ["file"]

    def test_a_body_that_writes_nothing(self, tmp_path):
        with pytest.raises(UserError, match="cannot be written"), written_whole(tmp_path / "a.txt"):
            pass
        assert names(tmp_path) == []

    def test_a_link_is_replaced_and_not_what_it_leads_to(self, tmp_path):
        (tmp_path / "shared.txt").write_text("of others", encoding="utf-8")
        (tmp_path / "link.txt").symlink_to("shared.txt")
        (tmp_path / "broken.txt").symlink_to("gone.txt")
        for name in ("link.txt", "broken.txt"):
            write_text(tmp_path / name, "mine")
            assert (tmp_path / name).read_text(encoding="utf-8") == "mine"
            assert not (tmp_path / name).is_symlink()
        assert names(tmp_path) == ["broken.txt", "link.txt", "shared.txt"]
        assert (tmp_path / "shared.txt").read_text(encoding="utf-8") == "of others"

    def test_a_link_can_be_written(self, tmp_path):
        with written_whole(tmp_path / "link") as unfinished:
            unfinished.symlink_to(tmp_path / "gone")
        assert (tmp_path / "link").readlink() == tmp_path / "gone"

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_permissions_are_those_of_any_new_file(self, tmp_path, mask):
        before = os.umask(mask)
        try:
            write_text(tmp_path / "ours", "x")
            (tmp_path / "plain").write_text("x", encoding="utf-8")
        finally:
            os.umask(before)
        assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_a_relative_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_text(Path("a.txt"), "x")
        assert names(tmp_path) == ["a.txt"]


class TestKilledWriters:
    half = (
        "import sys, time; from pathlib import Path; from nnunetv2_d2net.base.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half'); print('writing', flush=True); time.sleep(60)"
    )

    def test_the_old_file_stays_and_the_next_writer_cleans_up(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("old", encoding="utf-8")
        process = start(self.half, path)
        wait_for(process, "writing")
        process.kill()
        process.wait()
        assert path.read_text(encoding="utf-8") == "old"
        assert names(tmp_path) == [".unfinished", "a.txt"]
        write_text(tmp_path / "b.txt", "new")
        assert names(tmp_path) == ["a.txt", "b.txt"]

    def test_a_living_writer_keeps_what_it_has(self, tmp_path):
        process = start(self.half, tmp_path / "a.txt")
        wait_for(process, "writing")
        write_text(tmp_path / "b.txt", "new")
        assert names(tmp_path) == [".unfinished", "b.txt"]
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it was asked whether it lives, and did not"

    def test_a_writer_of_another_user_lives(self, tmp_path, monkeypatch):
        def refuse(_process, number):
            assert number == 0, "it is asked, and sent nothing"
            raise PermissionError(errno.EPERM, "Operation not permitted")

        with unfinished_folder(tmp_path) as own:
            machine = own.name.rsplit("-", 2)[0]
        left = tmp_path / ".unfinished" / f"{machine}-1-0"
        left.mkdir(parents=True)
        monkeypatch.setattr(os, "kill", refuse)
        write_text(tmp_path / "a.txt", "new")
        assert left.is_dir()

    def test_a_process_may_have_the_number_of_a_killed_one(self, tmp_path):
        """In containers the numbers of processes begin anew."""
        script = (
            "import os, sys, socket; from pathlib import Path; from nnunetv2_d2net.base import files\n"
            "folder = Path(sys.argv[1])\n"
            "with files.unfinished_folder(folder) as own: name = own.name\n"
            "machine, process, run = name.rsplit('-', 2)\n"
            "assert process == str(os.getpid())\n"
            "for run in '012': (folder / '.unfinished' / f'{machine}-{process}-{run}' / 'x').mkdir(parents=True)\n"
            "files.write_text(folder / 'a.txt', 'new')"
        )
        assert start(script, tmp_path).wait() == 0
        assert names(tmp_path) == ["a.txt"]

    def test_what_another_machine_writes_stays(self, tmp_path):
        gone = start("pass")
        gone.wait()
        others = [f"{socket.gethostname()}-2-{gone.pid}-0", f"elsewhere-{gone.pid}-0", "elsewhere", "-", "a--b"]
        for name in others:
            (tmp_path / ".unfinished" / name / "x").mkdir(parents=True)
        write_text(tmp_path / "a.txt", "new")
        assert names(tmp_path / ".unfinished") == sorted(others)

    def test_what_another_machine_has_left_long_ago_goes(self, tmp_path):
        left = tmp_path / ".unfinished" / "elsewhere-1-0"
        (left / "x").mkdir(parents=True)
        os.utime(left, (time.time() - 10 * 86400,) * 2)
        write_text(tmp_path / "a.txt", "new")
        assert names(tmp_path) == ["a.txt"]

    def test_what_this_machine_has_left_goes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(socket, "gethostname", lambda: "my-machine")
        gone = start("pass")
        gone.wait()
        with unfinished_folder(tmp_path) as own:
            machine, _, run = own.name.rsplit("-", 2)
            for name in (f"{gone.pid}-0", f"{os.getpid()}-0", f"{os.getpid()}-{run}x"):
                (own.parent / f"{machine}-{name}").mkdir()
            (own.parent / f"{machine}-{gone.pid}-1").touch()  # no folder, which nobody makes
            write_text(tmp_path / "a.txt", "new")
            own_run = [f"{machine}-{os.getpid()}-{run}", f"{machine}-{os.getpid()}-{run}x"]
            assert names(own.parent) == sorted([f"{machine}-{gone.pid}-1", *own_run])

    def test_machines_are_told_apart_by_name_and_container(self, tmp_path, monkeypatch):
        container = Path("/proc/self/ns/pid")
        if container.exists():
            with unfinished_folder(tmp_path) as own:
                assert own.name.startswith(f"{socket.gethostname()}.{container.stat().st_ino}-{os.getpid()}-")

        stat = Path.stat

        def fail(path, **how):
            if path == container:
                raise FileNotFoundError(errno.ENOENT, "as on other systems")
            return stat(path, **how)

        monkeypatch.setattr(Path, "stat", fail)
        with unfinished_folder(tmp_path) as own:
            assert own.name.startswith(f"{socket.gethostname()}-{os.getpid()}-")

    @pytest.mark.parametrize("number", ["99999999999999999999999", "0", "-1", "x", ""])
    def test_odd_names_do_no_harm(self, tmp_path, number):
        with unfinished_folder(tmp_path) as own:
            machine = own.name.rsplit("-", 2)[0]
        (tmp_path / ".unfinished" / f"{machine}-{number}-0").mkdir(parents=True)
        (tmp_path / ".unfinished" / f"{machine}-file-0").touch()
        write_text(tmp_path / "a.txt", "new")
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"

    def test_writers_of_one_folder_do_not_hinder_each_other(self, tmp_path):
        script = (
            "import sys; from pathlib import Path; from nnunetv2_d2net.base.files import unfinished_folder\n"
            "for _ in range(400):\n"
            "    with unfinished_folder(Path(sys.argv[1])) as own: (own / 'x').touch()"
        )
        processes = [start(script, tmp_path) for _ in range(3)]
        assert [process.wait() for process in processes] == [0, 0, 0]
        assert names(tmp_path) == []

    def test_threads_do_not_hinder_each_other(self, tmp_path):
        def write(name):
            for i in range(50):
                write_text(tmp_path / name, str(i))

        threads = [threading.Thread(target=write, args=(f"{i}.txt",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {"49"}
        assert names(tmp_path) == [f"{i}.txt" for i in range(4)]

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")
    def test_the_next_user_of_a_shared_folder_can_write(self, tmp_path, request):
        """What one user was killed at must not close the folder to the others of the group."""
        folder = tmp_path / "shared"
        folder.mkdir()
        folder.chmod(0o777)
        for outer in (tmp_path, *tmp_path.parents):
            mode = stat.S_IMODE(outer.stat().st_mode)
            request.addfinalizer(lambda outer=outer, mode=mode: outer.chmod(mode))
            outer.chmod(mode | 0o011)
        with written_whole(folder / "a.txt") as unfinished:
            unfinished.write_text("x", encoding="utf-8")
            os.seteuid(65534)
            try:
                write_text(folder / "b.txt", "of another user")
            finally:
                os.seteuid(0)
        assert names(folder) == ["a.txt", "b.txt"]


class TestUnfinishedFolder:
    def test_files_are_published_one_by_one(self, tmp_path):
        with unfinished_folder(tmp_path / "new") as own:
            (own / "a").write_text("a", encoding="utf-8")
            (own / "b").write_text("half", encoding="utf-8")
            publish(own / "a", tmp_path / "new" / "a")
        assert names(tmp_path / "new") == ["a"]

    def test_a_folder_is_published_as_a_file_is(self, tmp_path):
        with unfinished_folder(tmp_path) as own:
            (own / "a").mkdir()
            (own / "a" / "b").touch()
            publish(own / "a", tmp_path / "a")
        assert names(tmp_path / "a") == ["b"]

    def test_somebody_may_have_removed_it(self, tmp_path):
        with unfinished_folder(tmp_path) as own:
            own.rmdir()
        assert names(tmp_path) == []

    def test_the_last_one_who_wrote_there_may_have_removed_its_parent(self, tmp_path, monkeypatch):
        def remove(_source, parent):
            parent.rmdir()
            monkeypatch.undo()

        monkeypatch.setattr("shutil.copymode", remove)
        with unfinished_folder(tmp_path) as own:
            assert own.is_dir()

    def test_it_cannot_be_made_for_ever(self, tmp_path, monkeypatch):
        def fail(*_args, **_kwargs):
            raise FileExistsError(errno.EEXIST, "File exists")

        monkeypatch.setattr(Path, "mkdir", fail)
        with pytest.raises(FileExistsError), unfinished_folder(tmp_path):
            pytest.fail("there is none")

    def test_two_at_once_have_folders_of_their_own(self, tmp_path):
        with unfinished_folder(tmp_path) as one:
            with unfinished_folder(tmp_path) as other:
                assert one != other
            assert one.is_dir()
            assert not other.exists()
        assert names(tmp_path) == []

    def test_a_file_is_on_the_disk_before_it_has_its_name(self, tmp_path, monkeypatch):
        steps = []
        fsync, replace = os.fsync, Path.replace
        monkeypatch.setattr(os, "fsync", lambda number: steps.append("fsync") or fsync(number))
        monkeypatch.setattr(Path, "replace", lambda *paths: steps.append("replace") or replace(*paths))
        write_text(tmp_path / "a", "x")
        assert steps == ["fsync", "replace"]


class TestExplaining:
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
            (OSError("a reason of one's own"), "a reason of one's own"),
            (OSError(), "OSError"),
            (RuntimeError("in WriteImage:\nsitk.cxx:1:\nITK ERROR: cannot write\n"), "ITK ERROR: cannot write"),
            (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), "enforce fail"),
            (RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"), "file write failed"),
        ],
    )
    def test_failed_writing_is_one_line(self, error, reason):
        with pytest.raises(UserError, match=re.escape(reason)) as raised, explaining_disk_errors(Path("a"), "do this"):
            raise error
        assert one_line(raised).startswith("a cannot be written (")
        assert one_line(raised).endswith("): do this")
        assert raised.value.__cause__ is error

    @pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), ValueError("ITK ERROR"), UserError("x")])
    def test_other_faults_pass(self, error):
        with pytest.raises(type(error)) as raised, explaining_disk_errors(Path("a")):
            raise error
        assert raised.value is error


class TestText:
    def test_utf8_whatever_the_locale(self, tmp_path):
        write_text(tmp_path / "a", "Müller 脳\n")
        assert (tmp_path / "a").read_bytes() == "Müller 脳\n".encode()

    def test_names_that_are_no_text_are_still_written(self, tmp_path):
        write_text(tmp_path / "a", os.fsdecode(b"case \xff.nii") + " \ud800")
        assert (tmp_path / "a").read_text(encoding="utf-8") == r"case \udcff.nii \ud800"

    def test_text_is_added_as_it_is(self, tmp_path):
        for text in ("a,b\r\n", "ü\n", os.fsdecode(b"\xff")):
            append_text(tmp_path / "a", text)
        assert (tmp_path / "a").read_bytes() == "a,b\r\nü\n\\udcff".encode()
        with pytest.raises(UserError, match="cannot be written"):
            append_text(tmp_path, "text")

    def test_a_file_that_says_just_this_stays(self, tmp_path):
        write_text(tmp_path / "a", "same")
        before = file_state(tmp_path / "a")
        os.utime(tmp_path / "a", ns=(1, 1))
        write_text(tmp_path / "a", "same")
        assert file_state(tmp_path / "a") == [4, 1] != before
        write_text(tmp_path / "a", "sama")
        assert file_state(tmp_path / "a") != [4, 1]


class TestJson:
    def test_the_order_of_keys_is_kept(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, {"b": 1, "a": {"ü": [1.5, None, True]}})
        assert (
            path.read_text(encoding="utf-8")
            == '{\n  "b": 1,\n  "a": {\n    "\\u00fc": [\n      1.5,\n      null,\n      true\n    ]\n  }\n}\n'
        )
        write_json(path, {"a": 1, "b": 1}, indent=None)
        write_json(path, {"b": 1, "a": 1}, indent=None)
        assert path.read_text(encoding="utf-8") == '{"b": 1, "a": 1}\n'
        with pytest.raises(UserError, match=r"cannot be written \(Is a directory\): do this$"):
            write_json(tmp_path, {}, "do this")

    def test_what_is_no_json_leaves_the_old_file(self, tmp_path):
        write_json(tmp_path / "a.json", {"a": 1})
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"a": object()})
        assert read_json(tmp_path / "a.json", "") == {"a": 1}
        assert names(tmp_path) == ["a.json"]

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "is no JSON (line 1: Expecting value)"),
            (b"{", "is no JSON (line 1: "),
            (b'{\n"a": 1,\n}', "is no JSON (line "),
            (b'{"a": 1} x', "is no JSON (line 1: Extra data)"),
            (b"\x00" * 100, "is no JSON (line 1: "),
            (b"[1]", "holds a list, not an object"),
            (b'"a"', "holds a text, not an object"),
            (b"1", "holds a whole number, not an object"),
            (b"1.5", "holds a number, not an object"),
            (b"NaN", "holds a number, not an object"),
            (b"true", "holds true or false, not an object"),
            (b"null", "holds null, not an object"),
            ('{"a": 1}'.encode("utf-16"), "is no text in UTF-8 (byte 0)"),
            ('{"a": 1}'.encode("utf-16-le"), "is no JSON (line 1: "),
            ('{"a": "ü"}'.encode("latin-1"), "is no text in UTF-8 (byte 7)"),
            (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
            (b"[" * 100_000, "is nested too deeply"),
            (b'{"a": ' * 100_000, "is nested too deeply"),
            (b'{"a": ' + b"1" * 5000 + b"}", "is no JSON ("),
        ],
    )
    def test_what_is_no_object(self, tmp_path, data, reason):
        path = tmp_path / "a.json"
        path.write_bytes(data)
        with pytest.raises(UserError) as error:
            read_json(path, "mend it")
        assert one_line(error).startswith(f"{path} {reason}")
        assert one_line(error).endswith(": mend it")
        assert read_json_or(path, {"default": 1}) == {"default": 1}

    def test_what_is_no_file(self, tmp_path):
        for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "gone", "No such file or directory")):
            with pytest.raises(UserError) as error:
                read_json(path, "mend it")
            assert str(error.value) == f"{path} cannot be read ({reason}): mend it"
            assert read_json_or(path, 7) == 7
            assert read_json_lines(path) == []

    def test_what_python_reads_is_read(self, tmp_path):
        """As nnU-Net does: NaN is a number, and the last one of two equal keys counts."""
        (tmp_path / "a.json").write_text('{"a": NaN, "b": 1, "b": "\\ud83e\\udde0"}', encoding="utf-8")
        content = read_json(tmp_path / "a.json", "", {"a": float, "b": str})
        assert content["a"] != content["a"]
        assert content["b"] == "🧠"

    @pytest.mark.parametrize(
        ("kinds", "value", "words"),
        [
            (dict, [], "is a list, not an object"),
            (list, {}, "is an object, not a list"),
            (str, None, "is null, not a text"),
            (int, True, "is true or false, not a whole number"),
            (int, 1.0, "is a number, not a whole number"),
            ((int, float), False, "is true or false, not a whole number or a number"),
            ((list, str), 1, "is a whole number, not a list or a text"),
            (bool, 1, "is a whole number, not true or false"),
        ],
    )
    def test_keys_of_another_type(self, tmp_path, kinds, value, words):
        write_json(tmp_path / "a.json", {"key": value, "other": 1})
        with pytest.raises(UserError) as error:
            read_json(tmp_path / "a.json", "mend it", {"other": int, "key": kinds})
        assert str(error.value) == f'{tmp_path / "a.json"}: "key" {words}: mend it'

    def test_keys_of_the_right_type(self):
        content = {"a": 1, "b": True, "c": None, "d": 1.5}
        for key, kinds in (("a", int), ("a", (float, int)), ("b", bool), ("c", (str, type(None))), ("d", float)):
            check_key(content, key, kinds, "x", "")
        with pytest.raises(UserError, match=r'^x: "a" is tuple, not a list: mend it$'):  # as no file holds it
            check_key({"a": (1,)}, "a", list, "x", "mend it")
        with pytest.raises(UserError, match=r'^x lacks "e": mend it$'):
            check_key(content, "e", int, "x", "mend it")

    @pytest.mark.parametrize("default", [{}, [], "", 0, None])
    def test_notes_of_another_type_count_as_absent(self, tmp_path, default):
        for value in ({"a": 1}, [1], "text", 5, None, 1.5):
            write_json(tmp_path / "a.json", value)
            expected = value if default is None or type(value) is type(default) else default
            assert read_json_or(tmp_path / "a.json", default) == expected

    def test_a_note_that_was_cut_short_counts_as_absent(self, tmp_path):
        data = json.dumps({"a": [1, 2, "ü"]}, ensure_ascii=False).encode()
        for n in range(len(data)):
            (tmp_path / "a.json").write_bytes(data[:n])
            assert read_json_or(tmp_path / "a.json", {}) == {}


class TestJournal:
    def test_lines_come_back_in_order(self, tmp_path):
        lines = [{"a": 1}, {"text": "two\nlines \u2028 ü"}, [1], None]
        for line in lines:
            append_json_line(tmp_path / "a", line)
        assert read_json_lines(tmp_path / "a") == lines

    def test_a_line_that_was_cut_short_spoils_no_other(self, tmp_path):
        append_json_line(tmp_path / "a", {"n": 1})
        append_json_line(tmp_path / "a", {"n": 2, "text": "long"})
        whole = (tmp_path / "a").read_bytes()
        for cut in range(1, len('{"n": 2, "text": "long"}')):
            (tmp_path / "a").write_bytes(whole[:-cut])
            append_json_line(tmp_path / "a", {"n": 3})
            assert read_json_lines(tmp_path / "a") == [{"n": 1}, {"n": 3}]

    def test_garbage_is_passed_over(self, tmp_path):
        (tmp_path / "a").write_bytes(
            b'\n\xff\xfe\x00\n{"n": 1}\r\n' + b"[" * 100_000 + b"\n" + b"1" * 5000 + b'\n{"n": 2}'
        )
        assert read_json_lines(tmp_path / "a") == [{"n": 1}, {"n": 2}]

    def test_a_full_disk_is_one_line(self, small_disk):
        path = small_disk / "a"
        append_json_line(path, {"n": 1})
        with pytest.raises(UserError, match=r"a cannot be written \(No space left on device\): make room"):
            append_json_line(path, {"n": 2, "text": "x" * 100_000}, "make room")
        assert read_json_lines(path) == [{"n": 1}]

    def test_a_device_that_is_full(self):
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        with pytest.raises(UserError, match="No space left on device"):
            append_json_line(Path("/dev/full"), {"n": 1})

    def test_writers_of_one_journal_do_not_mix_their_lines(self, tmp_path):
        script = (
            "import sys; from pathlib import Path; from nnunetv2_d2net.base.files import append_json_line\n"
            "for i in range(100): append_json_line(Path(sys.argv[1]), [sys.argv[2] * 20_000, i])"
        )
        processes = [start(script, tmp_path / "a", letter) for letter in "abc"]
        assert [process.wait() for process in processes] == [0, 0, 0]
        lines = read_json_lines(tmp_path / "a")
        assert sorted((text[0], i) for text, i in lines) == [(letter, i) for letter in "abc" for i in range(100)]


class TestLocked:
    holding = (
        "import sys, time; from pathlib import Path; from nnunetv2_d2net.base.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(float(sys.argv[2]))"
    )

    def test_another_process_waits_and_then_gives_up(self, tmp_path):
        holder = start(self.holding, tmp_path / "lock", 60)
        wait_for(holder, "held")
        two = locked(tmp_path / "lock", seconds=0.3)
        try:
            with pytest.raises(UserError, match=r"another process holds .*lock: wait for it, or end it"), two:
                pytest.fail("two hold one lock")
        finally:
            holder.kill()
            holder.wait()

    def test_a_killed_holder_holds_nothing(self, tmp_path):
        holder = start(self.holding, tmp_path / "lock", 60)
        wait_for(holder, "held")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with locked(tmp_path / "lock", seconds=1):
            pass

    def test_one_after_the_other(self, tmp_path):
        holder = start(self.holding, tmp_path / "lock", 0.5)
        wait_for(holder, "held")
        with locked(tmp_path / "lock", seconds=30):
            assert holder.wait(5) == 0

    def test_the_lock_goes_with_an_exception_and_can_be_taken_again(self, tmp_path):
        for _ in range(2):
            with pytest.raises(OSError, match="mine"), locked(tmp_path / "a" / "b" / "lock", seconds=1):
                raise OSError("mine")
        assert names(tmp_path / "a" / "b") == ["lock"]

    def test_a_lock_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"file/lock cannot be written"), locked(tmp_path / "file" / "lock"):
            pass

    def test_a_disk_without_locks(self, tmp_path, monkeypatch):
        """Some network disks; older versions of filelock say so by NotImplementedError."""

        def fail(*_args, **_kwargs):
            raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock instead")

        monkeypatch.setattr(files.FileLock, "acquire", fail)
        with pytest.raises(UserError, match="support flock"), locked(tmp_path / "lock"):
            pass


class TestLockedFolder:
    holding = TestLocked.holding.replace("locked", "locked_folder")

    def test_another_process_is_refused_at_once(self, tmp_path):
        holder = start(self.holding, tmp_path / "new", 60)
        wait_for(holder, "held")
        begin = time.monotonic()
        try:
            with pytest.raises(UserError, match="another process holds"), locked_folder(tmp_path / "new"):
                pytest.fail("two write one folder")
        finally:
            holder.kill()
            holder.wait()
        assert time.monotonic() - begin < 5
        assert names(tmp_path) == ["new"]
        with locked_folder(tmp_path / "new"):
            (tmp_path / "new" / "a").touch()
        assert names(tmp_path / "new") == ["a"]

    def test_nothing_stays_of_it(self, tmp_path):
        (tmp_path / "old").mkdir()
        for name in ("new", "old"):
            with pytest.raises(ValueError, match="mine"), locked_folder(tmp_path / name):
                raise ValueError("mine")
        assert names(tmp_path) == ["old"]
        assert names(tmp_path / "old") == []
        with locked_folder(tmp_path / "new"):
            assert names(tmp_path / "new") == [".d2net.lock"]
            (tmp_path / "new" / "a").touch()
        assert names(tmp_path / "new") == ["a"]

    def test_several_processes_may_write_different_parts(self, tmp_path):
        with locked_folder(tmp_path, "0"), locked_folder(tmp_path, "1"):
            assert names(tmp_path) == [".d2net.lock.0", ".d2net.lock.1"]
            with pytest.raises(UserError, match=r"another process holds .*lock\.1:"), locked_folder(tmp_path, "1"):
                pytest.fail("two write one part")
        assert names(tmp_path) == []

    def test_somebody_may_have_removed_the_lock(self, tmp_path):
        with locked_folder(tmp_path):
            (tmp_path / ".d2net.lock").unlink()
        assert names(tmp_path) == []

    def test_a_file_in_its_place(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="cannot be written"), locked_folder(tmp_path / "file"):
            pass


class TestLockedOutput:
    def test_one_process_at_a_time_writes_it(self, tmp_path):
        output = tmp_path / "out.zip"
        holder = start(TestLocked.holding.replace("locked", "locked_output"), output, 60)
        wait_for(holder, "held")
        try:
            told = f"another process holds {tmp_path / '.out.zip.d2net.lock'}: wait for it, or end it"
            with pytest.raises(UserError, match=f"^{re.escape(told)}$"), locked_output(output):
                pytest.fail("two write one file")
            with locked_output(tmp_path / "other.zip"):
                pass
        finally:
            holder.kill()
            holder.wait()
        with locked_output(output):
            assert not output.exists()
            output.touch()
        assert names(tmp_path) == ["out.zip"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"a file of d2net x cannot be written \(No space left"),
        (OSError(errno.EROFS, "Read-only file system", "a/b.json"), r"a/b\.json cannot be written \(Read-only"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos"), "a file of d2net x cannot be wr"),
        (RuntimeError("basic_ios::clear: iostream error"), "a file of d2net x cannot be written"),
    ],
)
def test_a_full_disk_is_one_line_whoever_writes(error, told):
    with pytest.raises(UserError, match=f"{told}.*: free space or make it writable"), explaining_full_disk("d2net x"):
        raise error


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file"), RuntimeError("a fault")])
def test_other_errors_pass_through(error):
    with pytest.raises(type(error)) as raised, explaining_full_disk("d2net x"):
        raise error
    assert raised.value is error


def test_a_folder_is_made_and_left_empty(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []


def test_the_state_of_a_file(tmp_path):
    assert file_state(tmp_path / "gone") is None
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(0, 1_700_000_000_123_456_789))
    assert file_state(tmp_path / "a") == [3, 1_700_000_000_123_456_789]


def test_the_state_of_a_files_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert content_state(tmp_path / "a") == [3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]


def test_sha256_of_a_file_larger_than_what_is_read_at_once(tmp_path):
    (tmp_path / "a").write_bytes(b"ab" * 2**20 + b"c")
    told = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, encoding="utf-8", check=True)
    assert sha256_of(tmp_path / "a") == told.stdout.split()[0]
