# Runs the calls of one PowerShell function: see docs/reference/worker-protocol.md.
using namespace System.Collections.Generic
using namespace System.IO
using namespace System.Management.Automation
using namespace System.Management.Automation.Language
using namespace System.Net
using namespace System.Net.Sockets
using namespace System.Text

$ProgressPreference = 'SilentlyContinue'
$PSStyle.OutputRendering = 'PlainText'
[Console]::OutputEncoding = [UTF8Encoding]::new($false)

# The handler cannot be used; the text says why and what to do.
class Unusable : System.Exception {
    Unusable([string] $message) : base($message) { }
}

# A call fails with this type and message, without a stack trace.
class Refused : System.Exception {
    [string] $Type

    Refused([string] $type, [string] $message) : base($message) {
        $this.Type = $type
    }
}

# Frames over the inherited socket.
class Channel {
    static [int] $MaxBody = 1048576
    static [int] $MaxHeader = 65536
    hidden [Socket] $Socket

    Channel() {
        $this.Socket = [Socket]::new([SafeSocketHandle]::new([IntPtr]::new(3), $true))
    }

    # So many bytes, or null at the end of the stream.
    hidden [byte[]] Take([int] $count) {
        $bytes = [byte[]]::new($count)
        $at = 0
        while ($at -lt $count) {
            $got = $this.Socket.Receive($bytes, $at, $count - $at, [SocketFlags]::None)
            if ($got -eq 0) {
                return $null
            }
            $at += $got
        }
        return $bytes
    }

    hidden static [int] Number([byte[]] $bytes, [int] $at) {
        return [IPAddress]::NetworkToHostOrder([BitConverter]::ToInt32($bytes, $at))
    }

    # The next frame as a table of Header and Body, or null at the end of the stream.
    [hashtable] Receive() {
        $lengths = $this.Take(8)
        if ($null -eq $lengths) {
            return $null
        }
        $head = [Channel]::Number($lengths, 0)
        $size = [Channel]::Number($lengths, 4)
        if ($head -lt 0 -or $head -gt [Channel]::MaxHeader -or $size -lt 0 -or $size -gt [Channel]::MaxBody) {
            throw 'a frame is too large'
        }
        $header = $this.Take($head)
        $body = $this.Take($size)
        if ($null -eq $header -or $null -eq $body) {
            return $null
        }
        $read = ConvertFrom-Json -AsHashtable -InputObject ([Encoding]::UTF8.GetString($header))
        return @{ Header = $read; Body = $body }
    }

    [void] Send([System.Collections.IDictionary] $header, [byte[]] $body, [int] $start, [int] $length) {
        $head = [Encoding]::UTF8.GetBytes((ConvertTo-Json -Compress -InputObject $header))
        $frame = [byte[]]::new(8 + $head.Length + $length)
        [BitConverter]::GetBytes([IPAddress]::HostToNetworkOrder([int] $head.Length)).CopyTo($frame, 0)
        [BitConverter]::GetBytes([IPAddress]::HostToNetworkOrder([int] $length)).CopyTo($frame, 4)
        [Array]::Copy($head, 0, $frame, 8, $head.Length)
        [Array]::Copy($body, $start, $frame, 8 + $head.Length, $length)
        $at = 0
        while ($at -lt $frame.Length) {
            $at += $this.Socket.Send($frame, $at, $frame.Length - $at, [SocketFlags]::None)
        }
    }

    [void] Send([System.Collections.IDictionary] $header, [byte[]] $body) {
        $this.Send($header, $body, 0, $body.Length)
    }

    [void] Send([System.Collections.IDictionary] $header) {
        $this.Send($header, [byte[]]::new(0), 0, 0)
    }

    # Sends a result in as many frames as it needs.
    [void] SendResult([long] $id, [byte[]] $result) {
        $type = 'head'
        $at = 0
        while ($result.Length - $at -gt [Channel]::MaxBody) {
            $this.Send(@{ type = $type; id = $id }, $result, $at, [Channel]::MaxBody)
            $type = 'chunk'
            $at += [Channel]::MaxBody
        }
        $this.Send(@{ type = 'end'; id = $id }, $result, $at, $result.Length - $at)
    }

    # Sends what a call wrote.
    [void] SendLog([long] $id, [string] $stream, [string] $text) {
        $bytes = [Encoding]::UTF8.GetBytes($text)
        for ($at = 0; $at -lt $bytes.Length; $at += [Channel]::MaxBody) {
            $length = [Math]::Min([Channel]::MaxBody, $bytes.Length - $at)
            $this.Send(@{ type = 'log'; id = $id; stream = $stream }, $bytes, $at, $length)
        }
    }
}

# Errors

$MaxMessage = 16384
$MaxTrace = 200

function New-Fault([string] $Type, [string] $Message, [string[]] $Trace) {
    if ($Message.Length -gt $MaxMessage) {
        $Message = $Message.Substring(0, $MaxMessage)
    }
    $fault = @{ type = $Type; message = $Message; stacktrace = @($Trace | Where-Object { $_ }) }
    # The comma keeps the bytes together.
    , [Encoding]::UTF8.GetBytes((ConvertTo-Json -Compress -Depth 3 -InputObject $fault))
}

# The function's own lines.
function Get-Trace([ErrorRecord] $ErrorRecord) {
    $lines = "$($ErrorRecord.ScriptStackTrace)" -split "`n" | Where-Object { $_ -and $_ -notmatch '/dispatch/' }
    $lines | Select-Object -First $MaxTrace | ForEach-Object { $_.Substring(0, [Math]::Min(1000, $_.Length)) }
}

# What a method of a class threw is inside of what says so.
function Get-Cause([ErrorRecord] $ErrorRecord) {
    $exception = $ErrorRecord.Exception
    if ($exception -is [MethodInvocationException] -and $exception.InnerException) {
        return $exception.InnerException
    }
    $exception
}

function Get-LoadFault([ErrorRecord] $ErrorRecord, [string] $Source) {
    $cause = Get-Cause $ErrorRecord
    if ($cause -is [Unusable]) {
        return New-Fault 'FunctionError' $cause.Message @()
    }
    $message = "$($cause.GetType().Name): $($cause.Message)"
    $place = $ErrorRecord.InvocationInfo
    if ($place.ScriptName -and $place.ScriptName.StartsWith("$Source/")) {
        $message += " ($($place.ScriptName.Substring($Source.Length + 1)), line $($place.ScriptLineNumber))"
    }
    New-Fault 'FunctionError' $message (Get-Trace $ErrorRecord)
}

function Get-CallFault([ErrorRecord] $ErrorRecord, [string] $Function) {
    $cause = Get-Cause $ErrorRecord
    if ($cause -is [Refused]) {
        return New-Fault $cause.Type $cause.Message @()
    }
    # Also a payload that does not fit the type of its parameter.
    $unfit = $cause -is [ParameterBindingException] -and $cause.CommandInvocation.MyCommand.Name -eq $Function
    $type = if ($unfit -or $cause -is [ArgumentException]) { 'InputError' } else { 'FunctionError' }
    New-Fault $type $cause.Message (Get-Trace $ErrorRecord)
}

# Loading

# The file and the function that a handler means.
function Resolve-Handler([string] $Source, [string] $Handler) {
    if (-not $Handler) {
        $files = @(Get-ChildItem -LiteralPath $Source -File | Where-Object Extension -EQ '.ps1' | Sort-Object Name)
        if ($files.Count -ne 1) {
            $list = if ($files.Count) { ': ' + (@($files.Name | Select-Object -First 10) -join ', ') } else { '' }
            throw [Unusable]::new("Exactly 1 source file needed when HANDLER is empty, but there are $($files.Count)" +
                "$list; name the handler, such as hello.ps1::handle")
        }
        return @{ File = $files[0].Name; Name = 'handle' }
    }
    $fits = $Handler -match '^(?:\./)?(?<file>[^:]+?)(?:\.ps1)?(?:::(?<name>[\w-]+))?$'
    if (-not $fits -or ($Matches.file -split '/') -contains '..') {
        throw [Unusable]::new("handler ""$Handler"" is not the name of a function; write file.ps1::function, such as " +
            'hello.ps1::handle')
    }
    $name = if ($Matches.name) { $Matches.name } else { 'handle' }
    @{ File = "$($Matches.file).ps1"; Name = $name }
}

# The handler's full name, its function's name, and the function.
function Import-Handler([string] $Source, [string] $Handler) {
    $found = Resolve-Handler $Source $Handler
    $path = Join-Path $Source $found.File
    if (-not (Test-Path -LiteralPath $path -PathType Leaf)) {
        throw [Unusable]::new("handler ""$Handler"": there is no file $($found.File) in the source")
    }
    $tokens = $problems = $null
    $null = [Parser]::ParseFile($path, [ref] $tokens, [ref] $problems)
    if ($problems) {
        $first = $problems[0]
        throw [Unusable]::new("$($found.File):$($first.Extent.StartLineNumber): $($first.Message)")
    }
    # A module of its own, so that its names and the worker's do not meet.
    $module = New-Module -Name function -ArgumentList $path -ScriptBlock {
        param($path)
        . $path
    }
    $functions = $module.ExportedFunctions
    if (-not $functions.ContainsKey($found.Name)) {
        $known = @($functions.Keys | Sort-Object | Select-Object -First 10)
        $hint = if ($known) { "; it has $($known -join ', ')" } else { '' }
        throw [Unusable]::new("handler ""$($found.File)::$($found.Name)"": $($found.File) has no function " +
            "$($found.Name)$hint")
    }
    @{ Full = "$($found.File)::$($found.Name)"; Name = $found.Name; Command = $functions[$found.Name] }
}

# Calls

$read = @{ NoEnumerate = $true; Depth = 512 }
if ((Get-Command ConvertFrom-Json).Parameters.ContainsKey('DateKind')) {
    # Without it, texts that look like a time become one.
    $read.DateKind = 'String'
}

function Read-Json([byte[]] $Bytes, [int] $Start, [int] $Length, [string] $What) {
    $text = [Encoding]::UTF8.GetString($Bytes, $Start, $Length)
    # The comma keeps a list one value.
    try {
        return , (ConvertFrom-Json -InputObject $text @read)
    } catch {
        # Objects can have neither an empty name nor two that differ in case only; tables can.
        try {
            return , (ConvertFrom-Json -InputObject $text -AsHashtable @read)
        } catch {
            throw [Refused]::new('InputError', "the $What is not JSON, or nested too deeply: $($_.Exception.Message)")
        }
    }
}

function Write-Json($Value, [long] $Limit) {
    if ($null -eq $Value) {
        return , [Encoding]::UTF8.GetBytes('null')
    }
    try {
        $json = @{ InputObject = $Value; Compress = $true; Depth = 100; WarningAction = 'SilentlyContinue' }
        $text = ConvertTo-Json @json -WarningVariable cut
    } catch {
        throw [Refused]::new('FunctionError', "the result cannot be written as JSON: $($_.Exception.Message)")
    }
    if ($cut) {
        throw [Refused]::new('FunctionError', 'the result cannot be written as JSON: it is nested too deeply, or holds itself')
    }
    $bytes = [Encoding]::UTF8.GetBytes($text)
    if ($bytes.Length -gt $Limit) {
        throw [Refused]::new('FunctionError',
            "the result has $($bytes.Length) bytes as JSON, but may have at most $Limit")
    }
    , $bytes
}

# Writes a line of a call's log.
function Write-Line([long] $Id, [string] $Stream, [string] $Text) {
    if ($overlaps) {
        $channel.SendLog($Id, $Stream, $Text)
    } elseif ($Stream -eq 'stderr') {
        [Console]::Error.Write($Text)
    } else {
        [Console]::Out.Write($Text)
    }
}

# Runs the function. What it leaves in its streams is its log, but for the first, which is its result.
function Invoke-Handler([long] $Id, $Context, $Payload) {
    $results = [List[object]]::new()
    $ended = $false
    # A `break` of the function's would otherwise end a loop of the worker's.
    do {
        & $handler.Command $Context $Payload *>&1 | ForEach-Object {
            $record = $_
            # No `switch`: it would look at the items of a list.
            if ($record -is [ErrorRecord]) {
                Write-Line $Id 'stderr' "$record`n"
            } elseif ($record -is [WarningRecord]) {
                Write-Line $Id 'stdout' "WARNING: $($record.Message)`n"
            } elseif ($record -is [VerboseRecord]) {
                Write-Line $Id 'stdout' "VERBOSE: $($record.Message)`n"
            } elseif ($record -is [DebugRecord]) {
                Write-Line $Id 'stdout' "DEBUG: $($record.Message)`n"
            } elseif ($record -is [InformationRecord]) {
                $data = $record.MessageData
                $end = if ($data -is [HostInformationMessage] -and $data.NoNewLine) { '' } else { "`n" }
                Write-Line $Id 'stdout' "$data$end"
            } else {
                $results.Add($record)
            }
        }
        $ended = $true
    } while ($false)
    if (-not $ended) {
        throw [Refused]::new('FunctionError', 'the function was left by break or continue; use return')
    }
    if ($results.Count -eq 0) {
        return $null
    }
    if ($results.Count -eq 1) {
        return , $results[0]
    }
    , $results.ToArray()
}

function Invoke-Call([hashtable] $Header, [byte[]] $Body) {
    $id = [long] $Header.id
    $fault = $result = $null
    try {
        $size = [int] $Header.context_len
        $context = Read-Json $Body 0 $size 'context'
        $payload = Read-Json $Body $size ($Body.Length - $size) 'payload'
        $result = Write-Json (Invoke-Handler $id $context $payload) $limit
    } catch {
        $fault = Get-CallFault $_ $handler.Name
    }
    [Console]::Out.Flush()
    [Console]::Error.Flush()
    if ($null -ne $fault) {
        $channel.Send(@{ type = 'error'; id = $id }, $fault)
    } else {
        $channel.SendResult($id, $result)
    }
}

# In a scope of its own: a script's is everybody's, and functions see that.
& {
    $ErrorActionPreference = 'Stop'
    $library = Join-Path $PSScriptRoot 'descriptor.dll'
    if (Test-Path -LiteralPath $library) {
        Add-Type -Path $library
        # F_SETFD, FD_CLOEXEC: processes that the handler starts do not get the socket.
        $null = [Dispatch.Descriptor]::fcntl(3, 2, 1)
    }
    $channel = [Channel]::new()
    $channel.Send(@{ type = 'hello'; protocol = 1 })
    $first = $channel.Receive()
    if ($null -eq $first) {
        [Environment]::Exit(0)
    }
    $source = $first.Header.source
    $limit = [long] $first.Header.result_limit
    $overlaps = $first.Header.concurrency -gt 1
    try {
        $variables = ConvertFrom-Json -AsHashtable -InputObject ([Encoding]::UTF8.GetString($first.Body))
        foreach ($variable in $variables.GetEnumerator()) {
            [Environment]::SetEnvironmentVariable($variable.Key, $variable.Value)
        }
        $env:PSModulePath = "/layer:$env:PSModulePath"
        # The source may have come to this place only now.
        Set-Location -LiteralPath $source
        [Environment]::CurrentDirectory = $source
        $handler = Import-Handler $source $first.Header.handler
    } catch {
        $channel.Send(@{ type = 'failed' }, (Get-LoadFault $_ $source))
        [Environment]::Exit(0)
    }
    # What the function says in these streams is in its log. Our own commands are still.
    $VerbosePreference = $DebugPreference = 'SilentlyContinue'
    $global:VerbosePreference = $global:DebugPreference = 'Continue'
    $channel.Send(@{ type = 'ready'; handler = $handler.Full })

    # Calls that arrive in pieces.
    $partial = @{}
    while ($null -ne ($frame = $channel.Receive())) {
        $id = $frame.Header.id
        switch ($frame.Header.type) {
            'ping' { $channel.Send(@{ type = 'pong' }) }
            'call' {
                if ($frame.Header.more) {
                    $pieces = [MemoryStream]::new()
                    $pieces.Write($frame.Body, 0, $frame.Body.Length)
                    $partial[$id] = @{ Header = $frame.Header; Pieces = $pieces }
                } else {
                    Invoke-Call $frame.Header $frame.Body
                }
            }
            { $_ -in 'chunk', 'end' } {
                $call = $partial[$id]
                if ($call) {
                    $call.Pieces.Write($frame.Body, 0, $frame.Body.Length)
                    if ($_ -eq 'end') {
                        $partial.Remove($id)
                        Invoke-Call $call.Header $call.Pieces.ToArray()
                    }
                }
            }
        }
    }
    [Environment]::Exit(0)
}
